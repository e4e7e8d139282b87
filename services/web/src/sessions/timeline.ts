/** What happened to a session, in order. Pure. */
import type { Session, SessionCommand } from "../api/types";
import { elapsed, label } from "../lib/format";
import { PHASE_LABELS } from "./state";

export interface Moment {
  key: string;
  at: string;
  title: string;
  detail: string | null;
  color: string;
}

const OUTCOME: Partial<Record<SessionCommand["state"], { word: string; color: string }>> = {
  completed: { word: "done", color: "teal" },
  failed: { word: "failed", color: "red" },
  expired: { word: "came too late", color: "orange" },
  superseded: { word: "replaced by a newer one", color: "gray" },
};

export function timeline(session: Session, commands: readonly SessionCommand[]): Moment[] {
  const moments: Moment[] = commands.flatMap((command) => momentsOf(command));
  if (session.terminatedAt) {
    const failed = session.state === "failed";
    moments.push({
      key: "end",
      at: session.terminatedAt,
      title: failed ? "Session failed" : "Session ended",
      detail: session.message ?? null,
      color: failed ? "red" : "gray",
    });
  }
  if (session.startedAt) {
    const detail = session.phases.map(({ phase, elapsedMs }) => `${PHASE_LABELS[phase].title} ${elapsed(elapsedMs)}`).join(" · ");
    moments.push({ key: "running", at: session.startedAt, title: "Desktop ready", detail: detail || null, color: "teal" });
  }
  moments.push({ key: "0-created", at: session.createdAt, title: `Created by ${session.owner.username}`, detail: null, color: "blue" });
  return moments.sort((a, b) => Date.parse(b.at) - Date.parse(a.at) || b.key.localeCompare(a.key));
}

function momentsOf(command: SessionCommand): Moment[] {
  const action = label(command.action);
  const by = command.actor.name ?? command.actor.id;
  const asked: Moment = {
    key: `${command.id}-1`,
    at: command.createdAt,
    title: `${action} asked for`,
    detail: `by ${by}${command.attempt > 1 ? `, attempt ${command.attempt}` : ""} · ${command.id}`,
    color: "blue",
  };
  const taken: Moment | null = command.acknowledgedAt
    ? { key: `${command.id}-2`, at: command.acknowledgedAt, title: `${action} taken by the cluster`, detail: null, color: "blue" }
    : null;
  const outcome = OUTCOME[command.state];
  const ended: Moment | null = outcome
    ? {
        key: `${command.id}-3`,
        at: command.completedAt ?? command.acknowledgedAt ?? command.createdAt,
        title: `${action} ${outcome.word}`,
        detail: command.error ?? null,
        color: outcome.color,
      }
    : null;
  return [asked, taken, ended].filter((moment) => moment !== null);
}
