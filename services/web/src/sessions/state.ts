/** What a session's state means to the person looking at it. Pure. */
import type { Phase, PhaseTiming, Reason, Session, SessionState } from "../api/types";

export interface StateLook {
  label: string;
  color: string;
  /** Something is going on that ends by itself. */
  busy: boolean;
  explanation: string;
}

export const STATE_LOOKS: Record<SessionState, StateLook> = {
  pending: { label: "Waiting", color: "blue", busy: true, explanation: "Waiting for a cluster to take it." },
  starting: { label: "Starting", color: "blue", busy: true, explanation: "The desktop is being started." },
  running: { label: "Running", color: "teal", busy: false, explanation: "Ready to be opened." },
  hibernating: { label: "Hibernating", color: "violet", busy: true, explanation: "Programs are being stopped; the home is kept." },
  hibernated: { label: "Hibernated", color: "violet", busy: false, explanation: "Stopped, with its home kept. Wake it to go on." },
  waking: { label: "Waking", color: "blue", busy: true, explanation: "The desktop is being started again." },
  terminating: { label: "Deleting", color: "orange", busy: true, explanation: "Everything of the session is being removed." },
  terminated: { label: "Deleted", color: "gray", busy: false, explanation: "The session has ended." },
  failed: { label: "Failed", color: "red", busy: false, explanation: "The session ended with an error." },
  unknown: {
    label: "Unknown",
    color: "yellow",
    busy: false,
    explanation:
      "The cluster it runs on does not answer. The session may well be running; it shows its true state as soon as the cluster is back.",
  },
};

const FINAL: ReadonlySet<SessionState> = new Set(["terminated", "failed"]);

export function isFinal(state: SessionState): boolean {
  return FINAL.has(state);
}

export type Action = "open" | "hibernate" | "wake" | "delete" | "progress" | "launch-again";

/** What can be done with a session now, the most likely first. */
export function actionsFor(state: SessionState): Action[] {
  switch (state) {
    case "pending":
    case "starting":
    case "waking":
      return ["progress", "delete"];
    case "running":
      return ["open", "hibernate", "delete"];
    case "hibernated":
      return ["wake", "delete"];
    case "hibernating":
    case "unknown":
      return ["delete"];
    case "terminating":
      return [];
    case "terminated":
    case "failed":
      return ["launch-again"];
  }
}

const REASONS: Record<Reason, string> = {
  user: "Asked for by a user.",
  "start-failed": "The desktop could not be started.",
  "wake-failed": "The desktop could not be started again.",
  "hibernate-failed": "The desktop could not be stopped cleanly.",
  "stop-failed": "The session could not be removed completely.",
  "desktop-died": "The desktop ended by itself.",
  "missing-program": "A program that the template needs is not installed on the cluster.",
  "no-space": "The cluster has no room left for it.",
  "unsupported-template": "The cluster cannot run this template.",
  "image-not-found": "The template's image does not exist.",
  "image-denied": "The cluster may not pull the template's image.",
  "image-unavailable": "The template's image could not be pulled.",
  unschedulable: "No machine of the cluster could take it.",
  "quota-exceeded": "The cluster's quota for sessions is used up.",
  "crash-loop": "The desktop ends as often as it is started.",
  "out-of-memory": "It ran out of memory.",
  "deadline-exceeded": "It took too long.",
  "cluster-offline": "The cluster does not answer.",
  "cluster-revoked": "The cluster's access has been revoked.",
  "cluster-removed": "The cluster was removed.",
  lost: "The cluster no longer knows this session.",
  idle: "Nobody used it for a while.",
  "max-duration": "Its time limit was reached.",
  other: "The cluster gave a reason that this version does not know.",
};

const NEXT_STEPS: Partial<Record<Reason, string>> = {
  "start-failed": "Launch it again; if it fails again, show the details to an administrator.",
  "wake-failed": "Launch a new session; your home is still there.",
  "desktop-died": "Launch it again; your home is still there.",
  "missing-program": "Ask an administrator to install it on the cluster, or choose another template.",
  "no-space": "Try again later, or choose fewer resources under Options.",
  "unsupported-template": "Choose another template.",
  "image-not-found": "Choose another template, and tell an administrator about this one.",
  "image-denied": "Ask an administrator to give the cluster credentials for the image's registry.",
  "image-unavailable": "Try again later; if it fails again, ask an administrator to look at the registry.",
  unschedulable: "Try again later, or choose fewer resources under Options.",
  "quota-exceeded": "Stop another session, or ask an administrator for a larger quota.",
  "crash-loop": "Choose another template, and show the details to an administrator.",
  "out-of-memory": "Launch it again with more memory under Options; your home is still there.",
  "deadline-exceeded": "Launch it again; if it happens again, ask an administrator to look at the cluster.",
  "cluster-offline": "Wait for the cluster to come back, or ask an administrator.",
  "cluster-revoked": "Ask an administrator whether the cluster will be let in again.",
  "cluster-removed": "Launch a new one; ask an administrator about what you kept there.",
  lost: "Launch it again; your home is still there.",
  idle: "Wake it to go on where your files are.",
  "max-duration": "Launch it again; your home is still there.",
};

/** Why a session is where it is, in words; null where the state says it all. */
export function reasonText(session: Pick<Session, "reason" | "message" | "state">): string | null {
  if (session.message) return session.message;
  if (!session.reason || session.reason === "user") return null;
  return REASONS[session.reason];
}

/** What agents put between a reason and the end of a program's log. */
const LAST_WORDS = " Its last words: ";

/** A reason without the program's last words, which are for who looks into it. */
export function shortReason(session: Pick<Session, "reason" | "message" | "state">): string | null {
  return reasonText(session)?.split(LAST_WORDS)[0] ?? null;
}

export function nextStep(session: Pick<Session, "reason">): string | null {
  return session.reason ? (NEXT_STEPS[session.reason] ?? null) : null;
}

export const PHASES: readonly Phase[] = ["scheduled", "pulling", "created", "started", "ready"];

export const PHASE_LABELS: Record<Phase, { title: string; explanation: string }> = {
  scheduled: { title: "Scheduled", explanation: "A cluster has taken it" },
  pulling: { title: "Pulling", explanation: "Getting the software" },
  created: { title: "Created", explanation: "The workspace and home are there" },
  started: { title: "Started", explanation: "The desktop is starting" },
  ready: { title: "Ready", explanation: "The desktop answers" },
};

export type StepStatus = "done" | "active" | "pending" | "skipped" | "failed";

export interface Step {
  phase: Phase;
  status: StepStatus;
  timing: PhaseTiming | null;
}

/** The steps of a start, as far as it has come; a phase that was passed over is `skipped`. */
export function startSteps(session: Pick<Session, "phases" | "state">): Step[] {
  const reached = new Map(session.phases.map((timing) => [timing.phase, timing]));
  const isReached = (timing: PhaseTiming | undefined) => timing !== undefined && !timing.ongoing;
  const last = PHASES.reduce((found, phase, index) => (isReached(reached.get(phase)) ? index : found), -1);
  const over = session.state === "running" || session.state === "hibernated";
  let next: "active" | "failed" | "pending" = session.state === "failed" ? "failed" : "active";
  if (isFinal(session.state) && session.state !== "failed") next = "pending";
  return PHASES.map((phase, index): Step => {
    const timing = reached.get(phase) ?? null;
    if (timing && (!timing.ongoing || over || index < last)) return { phase, status: "done", timing };
    if (over || index < last) return { phase, status: over && phase === "ready" ? "done" : "skipped", timing };
    const status = next;
    next = "pending";
    return { phase, status, timing };
  });
}

/**
 * The newer of two pictures of one session; events may repeat what a snapshot held.
 * Phases are reported beside the state, so both pictures' phases count.
 */
export function newer(known: Session | undefined, told: Session): Session {
  if (!known) return told;
  const [newest, other] = told.version >= known.version ? [told, known] : [known, told];
  return other.phases.reduce((session, timing) => withPhase(session, timing, other.generation), newest);
}

/** A session with one more phase reached. Of a phase told twice, as one that goes on is, the later word counts. */
export function withPhase(session: Session, timing: PhaseTiming, generation: number): Session {
  if (generation !== session.generation) return session;
  const known = session.phases.find(({ phase }) => phase === timing.phase);
  if (known && (!known.ongoing || known.elapsedMs >= timing.elapsedMs)) return session;
  const phases = [...session.phases.filter((each) => each !== known), timing].sort((a, b) => PHASES.indexOf(a.phase) - PHASES.indexOf(b.phase));
  return { ...session, phases };
}
