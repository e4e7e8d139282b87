/** What lies over the picture when it is not live. Pure. */
import type { Session } from "../api/types";
import { nextStep, shortReason, STATE_LOOKS } from "../sessions/state";
import type { StopAction } from "./reconnect";
import type { StreamState } from "./stream";

export interface Notice {
  title: string;
  message: string;
  busy: boolean;
  action: StopAction | "try-now" | null;
}

const UNKNOWN = "Your desktop may well be running. It comes back here by itself as soon as the cluster answers again.";

/** What the session's own state says comes first: it is the reason behind a closed stream. */
export function noticeFor(stream: StreamState, session: Session | undefined): Notice | null {
  if (stream.status === "connected") return null;
  const why = session ? shortReason(session) : null;
  switch (session?.state) {
    case "pending":
    case "starting":
      return { title: "Starting…", message: why ?? "The desktop opens by itself when it is ready.", busy: true, action: null };
    case "waking":
      return { title: "Waking up…", message: why ?? "The desktop opens by itself when it is ready.", busy: true, action: null };
    case "hibernating":
      return { title: "Hibernating…", message: why ?? STATE_LOOKS.hibernating.explanation, busy: true, action: null };
    case "hibernated":
      return { title: "This session is hibernated", message: why ?? STATE_LOOKS.hibernated.explanation, busy: false, action: "wake" };
    case "terminating":
    case "terminated":
      return { title: "The session has ended", message: why ?? "It was deleted.", busy: false, action: "launch-again" };
    case "failed":
      return {
        title: "The session failed",
        message: [why, session.reason && nextStep(session)].filter(Boolean).join(" ") || STATE_LOOKS.failed.explanation,
        busy: false,
        action: "launch-again",
      };
    case "unknown":
      // The stream may be refused meanwhile; the viewer begins again when the state is known.
      return { title: "The cluster does not answer", message: UNKNOWN, busy: true, action: stream.status === "reconnecting" ? "try-now" : null };
    default:
  }
  switch (stream.status) {
    case "stopped": {
      const { title, message, action } = stream.stop;
      // "Wake" is for sessions that sleep; this one does not, so trying again is what is left.
      return { title, message, busy: false, action: action === "wake" ? "reconnect" : action };
    }
    case "reconnecting":
      return { title: "Reconnecting…", message: stream.why, busy: true, action: "try-now" };
    default:
      return { title: "Connecting…", message: session?.templateDisplayName ?? "", busy: true, action: null };
  }
}
