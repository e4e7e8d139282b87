/** What a cluster's presence means to an operator. Pure. */
import type { Cluster, Presence } from "../api/types";
import { elapsed } from "../lib/format";

export const PRESENCE: Record<Presence, { color: string; text: string; explanation: string }> = {
  online: { color: "teal", text: "Online", explanation: "Its agent answers." },
  degraded: { color: "yellow", text: "Degraded", explanation: "Its agent answers late, or has trouble. It still takes sessions." },
  offline: {
    color: "red",
    text: "Offline",
    explanation: "No agent has been heard for a while. Its sessions may still run; commands wait until an agent is back.",
  },
  draining: { color: "violet", text: "Draining", explanation: "It takes no new sessions." },
};

/** How many commands no agent has taken, and for how long the oldest has waited. */
export function waiting({ waitingCommands, oldestWaitingSeconds }: Cluster): string {
  if (waitingCommands === 0) return "none";
  return oldestWaitingSeconds == null
    ? `${waitingCommands}`
    : `${waitingCommands}, the oldest for ${elapsed(oldestWaitingSeconds * 1000)}`;
}
