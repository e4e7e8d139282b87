/** After a stream ended: try again, or stop and say why. Pure. */
import { ApiError } from "../api/problem";

export type Ending =
  /** The WebSocket was closed; 1006 stands for a connection that broke. */
  | { kind: "closed"; code: number; reason: string }
  /** No ticket was given. */
  | { kind: "refused"; error: unknown }
  /** The desktop's server wants something we cannot give. */
  | { kind: "incompatible"; reason: string };

export type StopAction = "wake" | "launch-again" | "reconnect" | "back";

export interface Stop {
  title: string;
  message: string;
  action: StopAction;
}

export type Next = { kind: "retry"; delay: number; why: string } | ({ kind: "stop" } & Stop);

export interface History {
  /** Endings in a row without a connection between them; 1 for the first. */
  failures: number;
  /** A ticket was refused already, and a fresh one was tried. */
  ticketRetried: boolean;
}

export const CLOSE = {
  ticketRefused: 4401,
  originRefused: 4403,
  noSession: 4404,
  openTimeout: 4408,
  notRunning: 4409,
  ended: 4410,
  unreachable: 4502,
  restarting: 1012,
  tryAgain: 1013,
} as const;

/** The first is short: a relay that restarts has a replica beside it, or is back in a second. */
const PAUSES = [250, 500, 1_000, 2_000, 5_000];

/** Milliseconds before the next try, before jitter. */
export function pauseAfter(failures: number): number {
  return PAUSES[Math.min(failures, PAUSES.length) - 1] ?? 250;
}

export function decide(ending: Ending, { failures, ticketRetried }: History): Next {
  switch (ending.kind) {
    case "incompatible":
      return { kind: "stop", title: "The desktop refused the viewer", message: ending.reason, action: "reconnect" };
    case "refused":
      return afterRefusal(ending.error, failures);
    case "closed":
      return afterClose(ending, failures, ticketRetried);
  }
}

function afterClose({ code, reason }: { code: number; reason: string }, failures: number, ticketRetried: boolean): Next {
  switch (code) {
    case CLOSE.ticketRefused:
      if (!ticketRetried) return { kind: "retry", delay: 0, why: "Asking for a fresh ticket." };
      return stop("You may not watch this session", reason || "The ticket was refused twice. Open the session again.", "back");
    case CLOSE.originRefused:
      return stop(
        "This page may not open streams",
        reason || "The relay does not know this page's address. Ask an administrator to allow it.",
        "back",
      );
    case CLOSE.noSession:
      return stop("There is no such session", reason || "It may have been deleted.", "back");
    case CLOSE.notRunning:
      return stop("The session is not running", reason || "Wake it to go on.", "wake");
    case CLOSE.ended:
      return stop("The session has ended", reason || "Somebody deleted it, or its time was over.", "launch-again");
    default:
      return { kind: "retry", delay: pauseAfter(failures), why: reason || whyRetry(code) };
  }
}

function whyRetry(code: number): string {
  switch (code) {
    case CLOSE.restarting:
      return "The relay is restarting.";
    case CLOSE.unreachable:
      return "The session cannot be reached right now.";
    case CLOSE.openTimeout:
      return "The session took too long to answer.";
    case CLOSE.tryAgain:
      return "The relay is busy.";
    default:
      return "The connection was lost.";
  }
}

function afterRefusal(error: unknown, failures: number): Next {
  if (!(error instanceof ApiError)) return { kind: "retry", delay: pauseAfter(failures), why: "The connection was lost." };
  const { code, status } = error;
  const { title, detail, retryAfter } = error.problem;
  if (status === 404) return stop("There is no such session", detail, "back");
  if (code === "wrong-state") return stop("The session is not running", detail, "wake");
  if (code === "too-many-requests") {
    return { kind: "retry", delay: Math.max((retryAfter ?? 5) * 1_000, pauseAfter(failures)), why: detail };
  }
  if (status >= 400 && status < 500) return stop(title, detail, "back");
  return { kind: "retry", delay: pauseAfter(failures), why: detail };
}

function stop(title: string, message: string, action: StopAction): Next {
  return { kind: "stop", title, message, action };
}
