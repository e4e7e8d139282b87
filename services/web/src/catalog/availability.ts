/** Whether a template can be launched here, known before anybody clicks. Pure. */
import type { OfferedRuntimes, RuntimeKind, Template } from "../api/types";

export type Availability =
  | { kind: "ready" }
  /** A cluster for it is known but away: a launch waits for it. */
  | { kind: "waits"; note: string }
  | { kind: "needs-cluster"; note: string }
  | { kind: "unusable"; note: string };

const READY: Availability = { kind: "ready" };

// Kubernetes comes first: it is what most installations add.
const NAMES: [RuntimeKind, string][] = [
  ["kubernetes", "Kubernetes"],
  ["docker", "Docker"],
  ["process", "process-runtime"],
];

export function availability(template: Pick<Template, "runtimes" | "unusable">, offered: OfferedRuntimes | undefined): Availability {
  if (template.unusable) return { kind: "unusable", note: template.unusable };
  // Not known yet, or not to be had: the server's answer to the launch will tell.
  if (!offered) return READY;
  const runsOn = (kinds: readonly RuntimeKind[]) => template.runtimes.some((kind) => kinds.includes(kind));
  if (runsOn(offered.live)) return READY;
  if (runsOn(offered.items)) return { kind: "waits", note: "Its cluster is offline; it will start when it returns." };
  return { kind: "needs-cluster", note: `Needs a ${neededClusters(template.runtimes)} cluster` };
}

export const mayLaunch = ({ kind }: Availability): boolean => kind === "ready" || kind === "waits";

/** `Kubernetes or Docker`; the runtime for tests is nothing to ask for. */
export function neededClusters(kinds: readonly RuntimeKind[]): string {
  const names = NAMES.filter(([kind]) => kinds.includes(kind)).map(([, name]) => name);
  const last = names.pop() ?? "different";
  return names.length > 0 ? `${names.join(", ")} or ${last}` : last;
}

/** What can be launched, and what cannot, each in the order given. */
export function split<T extends Pick<Template, "runtimes" | "unusable">>(templates: readonly T[], offered: OfferedRuntimes | undefined): { here: T[]; elsewhere: T[] } {
  const here: T[] = [];
  const elsewhere: T[] = [];
  for (const template of templates) (mayLaunch(availability(template, offered)) ? here : elsewhere).push(template);
  return { here, elsewhere };
}
