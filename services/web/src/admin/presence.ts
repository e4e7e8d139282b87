/** What a cluster's presence means to an operator. Pure. */
import type { Cluster, Presence } from "../api/types";
import { ago, elapsed, plural } from "../lib/format";

export const PRESENCE: Record<Presence, { color: string; text: string; explanation: string }> = {
  online: { color: "teal", text: "Online", explanation: "Its agent answers." },
  degraded: { color: "yellow", text: "Degraded", explanation: "Its agent answers late, or has trouble. It still takes sessions." },
  offline: {
    color: "red",
    text: "Offline",
    explanation: "No agent has been heard for a while. Its sessions may still run; commands wait until an agent is back.",
  },
  draining: { color: "violet", text: "Draining", explanation: "It takes no new sessions; those it has go on." },
};

export const REVOKED = {
  // Dark enough for white letters, in both color schemes.
  color: "red.9",
  text: "Access revoked",
  explanation: "None of its agents is let in, until it is given a new enrolment. No session is started or woken there.",
};

/** How many commands no agent has taken, and for how long the oldest has waited. */
export function waiting({ waitingCommands, oldestWaitingSeconds, revokedAt }: Cluster): string {
  if (waitingCommands === 0) return "none";
  const number = revokedAt ? `${waitingCommands} for a new enrolment` : `${waitingCommands}`;
  return oldestWaitingSeconds == null ? number : `${number}, the oldest for ${elapsed(oldestWaitingSeconds * 1000)}`;
}

/** Its agents with their versions; one older than the control plane is named. */
export function agents({ agents: number, instances, version }: Cluster): string {
  if (number === 0) return "none";
  const versions = [...new Set(instances.map((one) => (one.behind ? `${one.version} (older than the control plane)` : one.version)))].sort();
  const shown = versions.length > 0 ? versions.join(", ") : version;
  return shown ? `${plural(number, "agent")}, version ${shown}` : plural(number, "agent");
}

/** Since when an operator wants no new sessions there, and who. */
export function drained({ drainedAt, drainedBy }: Cluster): string {
  return `No new sessions since ${ago(drainedAt)}${drainedBy ? `, says ${drainedBy}` : ""}.`;
}

/** Since when none of its agents is let in, and what would change that. */
export function revoked({ revokedAt }: Cluster): string {
  return `Its access was revoked ${ago(revokedAt)}. A new enrolment lets it in again.`;
}
