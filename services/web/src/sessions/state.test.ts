import { describe, expect, test } from "vitest";
import type { PhaseTiming, SessionState } from "../api/types";
import { aSession } from "../test/fake-api";
import { actionsFor, isFinal, newer, nextStep, reasonText, shortReason, startSteps, STATE_LOOKS, withPhase } from "./state";

const timing = (phase: PhaseTiming["phase"], elapsedMs = 10): PhaseTiming => ({ phase, elapsedMs, ongoing: false });
const going = (phase: PhaseTiming["phase"], message: string, elapsedMs = 10): PhaseTiming => ({ phase, elapsedMs, message, ongoing: true });
const ALL = Object.keys(STATE_LOOKS) as SessionState[];

test("every state has a label, a colour and an explanation", () => {
  for (const state of ALL) expect(Object.values(STATE_LOOKS[state]).every((value) => value !== "")).toBe(true);
});

test("states that end by themselves look busy, others do not", () => {
  const busy = ALL.filter((state) => STATE_LOOKS[state].busy);
  expect(busy).toEqual(["pending", "starting", "hibernating", "waking", "terminating"]);
});

test("only a running session can be opened, and everything living can be deleted", () => {
  expect(ALL.filter((state) => actionsFor(state).includes("open"))).toEqual(["running"]);
  const undeletable = ALL.filter((state) => !actionsFor(state).includes("delete"));
  expect(undeletable).toEqual(["terminating", "terminated", "failed"]);
});

test("unknown is explained and not final", () => {
  expect(STATE_LOOKS.unknown.explanation).toContain("may well be running");
  expect(isFinal("unknown")).toBe(false);
});

describe("the steps of a start", () => {
  const statuses = (session: Parameters<typeof startSteps>[0]) => startSteps(session).map(({ status }) => status);

  test("begin with the first one under way", () => {
    expect(statuses({ state: "pending", phases: [] })).toEqual(["active", "pending", "pending", "pending", "pending"]);
  });

  test("show a phase that goes on as the one that is worked on, with what is said of it", () => {
    const phases = [timing("scheduled"), going("pulling", "31 % of 1.2 GB")];
    expect(statuses({ state: "starting", phases })).toEqual(["done", "active", "pending", "pending", "pending"]);
    expect(startSteps({ state: "starting", phases })[1]?.timing?.message).toBe("31 % of 1.2 GB");
    expect(statuses({ state: "failed", phases })).toEqual(["done", "failed", "pending", "pending", "pending"]);
    expect(statuses({ state: "running", phases: [...phases, timing("ready")] })).toEqual(["done", "done", "skipped", "skipped", "done"]);
  });

  test("show a phase the runtime has not got as skipped", () => {
    const phases = [timing("scheduled"), timing("created")];
    expect(statuses({ state: "starting", phases })).toEqual(["done", "skipped", "done", "active", "pending"]);
  });

  test("mark where a failed start stopped", () => {
    expect(statuses({ state: "failed", phases: [timing("scheduled")] })).toEqual(["done", "failed", "pending", "pending", "pending"]);
  });

  test("are all behind a running session", () => {
    expect(statuses({ state: "running", phases: [timing("scheduled"), timing("ready")] })).toEqual(["done", "skipped", "skipped", "skipped", "done"]);
  });
});

describe("what is told twice or late", () => {
  test("never replaces something newer", () => {
    const known = aSession({ version: 5, state: "running" });
    expect(newer(known, aSession({ version: 4, state: "starting" })).state).toBe("running");
  });

  test("keeps the phases of both pictures of one start", () => {
    const known = aSession({ version: 2, phases: [timing("created")] });
    const told = aSession({ version: 2, phases: [timing("scheduled")] });
    expect(newer(known, told).phases.map(({ phase }) => phase)).toEqual(["scheduled", "created"]);
  });

  test("forgets the phases of an earlier start", () => {
    const known = aSession({ version: 2, generation: 1, phases: [timing("ready")] });
    expect(newer(known, aSession({ version: 3, generation: 2 })).phases).toEqual([]);
  });

  test("takes the later word of a phase that goes on, until it is reached", () => {
    const session = aSession({ phases: [going("pulling", "10 %", 1_000)] });
    const later = withPhase(session, going("pulling", "20 %", 2_000), 1);
    expect(later.phases.map(({ message }) => message)).toEqual(["20 %"]);
    expect(withPhase(later, going("pulling", "10 %", 1_000), 1)).toBe(later);
    const done = withPhase(later, timing("pulling", 3_000), 1);
    expect(done.phases).toEqual([timing("pulling", 3_000)]);
    expect(withPhase(done, going("pulling", "20 %", 2_000), 1)).toBe(done);
  });

  test("counts a phase once, and only for its own start", () => {
    const session = aSession({ phases: [timing("created", 5)] });
    expect(withPhase(session, timing("created", 9), 1)).toBe(session);
    expect(withPhase(session, timing("started"), 2)).toBe(session);
  });
});

test("a reason is told in the server's words, else in ours, and a wish needs none", () => {
  expect(reasonText(aSession({ reason: "no-space", message: "1 GiB left." }))).toBe("1 GiB left.");
  expect(reasonText(aSession({ reason: "idle" }))).toBe("Nobody used it for a while.");
  expect(reasonText(aSession({ reason: "user" }))).toBeNull();
  expect(nextStep(aSession({ reason: "desktop-died" }))).toContain("Launch it again");
});

test("a list shows a reason without the program's last words", () => {
  const session = aSession({ state: "failed", message: "Xvnc was killed by SIGKILL. Its last words: Fatal | server error" });
  expect(shortReason(session)).toBe("Xvnc was killed by SIGKILL.");
  expect(reasonText(session)).toContain("Fatal");
  expect(shortReason(aSession())).toBeNull();
});
