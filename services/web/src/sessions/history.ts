/** A session's history in words, the newest first. Pure. */
import type { HistoryEntry, SessionCommand } from "../api/types";
import { label } from "../lib/format";
import { STATE_LOOKS } from "./state";

export interface Moment {
  key: string;
  at: string;
  title: string;
  detail: string | null;
  color: string;
}

const COMMAND_NEWS: Record<SessionCommand["state"], { word: string; color: string }> = {
  pending: { word: "sent", color: "blue" },
  delivered: { word: "handed to an agent", color: "blue" },
  acknowledged: { word: "taken by the cluster", color: "blue" },
  completed: { word: "done", color: "teal" },
  failed: { word: "failed", color: "red" },
  superseded: { word: "replaced by a newer one", color: "gray" },
  expired: { word: "came too late", color: "orange" },
};

const LETTER_NEWS: Record<string, { title: string; color: string }> = {
  "session.command-died.v1": { title: "A command gave up", color: "red" },
  "session.dead-letter-retried.v1": { title: "The command was retried", color: "blue" },
  "session.dead-letter-discarded.v1": { title: "The failed command was discarded", color: "gray" },
};

export function momentsOf(entries: readonly HistoryEntry[]): Moment[] {
  return entries.map(momentOf).reverse();
}

function momentOf(entry: HistoryEntry): Moment {
  const { title, color } = news(entry);
  const parts = [entry.message, `by ${entry.actor.name ?? entry.actor.id}`, lost(entry.replaced), entry.traceId && `trace ${entry.traceId}`];
  return { key: entry.eventId, at: entry.at, title, detail: parts.filter(Boolean).join(" · "), color };
}

function news({ type, fromState, toState, command }: HistoryEntry): { title: string; color: string } {
  const letter = LETTER_NEWS[type];
  if (letter) return letter;
  if (toState) {
    const look = STATE_LOOKS[toState];
    return { title: fromState ? `${STATE_LOOKS[fromState].label} → ${look.label}` : "Created", color: look.color };
  }
  if (!command) return { title: label(type.split(".")[1] ?? type), color: "gray" };
  const { word, color } = COMMAND_NEWS[command.state];
  return { title: `${label(command.action)} ${word}${command.attempt > 1 ? `, attempt ${command.attempt}` : ""}`, color };
}

/** What became of the command that this one took the place of, where that is worth a word. */
function lost(replaced: SessionCommand | null | undefined): string | null {
  if (!replaced || replaced.state === "completed") return null;
  return `${label(replaced.action)} ${COMMAND_NEWS[replaced.state].word}`;
}
