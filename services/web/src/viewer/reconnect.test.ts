import { describe, expect, test } from "vitest";
import { problemFrom, unreachable } from "../api/problem";
import { aSession } from "../test/fake-api";
import { noticeFor } from "./notice";
import { CLOSE, decide, pauseAfter } from "./reconnect";
import { FILLER, typedKeys } from "./touch-keyboard";

const first = { failures: 1, ticketRetried: false };
const closed = (code: number, reason = "") => ({ kind: "closed", code, reason }) as const;

describe("after a close the viewer", () => {
  test.each([1000, 1001, 1006, 1011, CLOSE.restarting, CLOSE.tryAgain, CLOSE.openTimeout, CLOSE.unreachable])("tries again on %i", (code) => {
    expect(decide(closed(code), first).kind).toBe("retry");
  });

  test.each([
    [CLOSE.originRefused, "back"],
    [CLOSE.noSession, "back"],
    [CLOSE.notRunning, "wake"],
    [CLOSE.ended, "launch-again"],
  ])("stops on %i and offers to %s", (code, action) => {
    expect(decide(closed(code), first)).toMatchObject({ kind: "stop", action });
  });

  test("shows the relay's own reason", () => {
    expect(decide(closed(CLOSE.ended, "An administrator deleted it."), first)).toMatchObject({ message: "An administrator deleted it." });
  });

  test("asks for a fresh ticket once when one was refused, at once", () => {
    expect(decide(closed(CLOSE.ticketRefused), first)).toMatchObject({ kind: "retry", delay: 0 });
    expect(decide(closed(CLOSE.ticketRefused), { failures: 2, ticketRetried: true })).toMatchObject({ kind: "stop", action: "back" });
  });

  test("waits longer after each failure, up to five seconds", () => {
    expect([1, 2, 3, 4, 5, 9].map(pauseAfter)).toEqual([250, 500, 1_000, 2_000, 5_000, 5_000]);
  });
});

describe("when no ticket is given the viewer", () => {
  const refused = (status: number, code: string, more = {}) => decide({ kind: "refused", error: problemFrom(status, { code, detail: "why", ...more }) }, first);

  test("stops for a session that is gone or not running", () => {
    expect(refused(404, "not-found")).toMatchObject({ kind: "stop", action: "back" });
    expect(refused(409, "wrong-state")).toMatchObject({ kind: "stop", action: "wake", message: "why" });
  });

  test("tries again while the control plane is away", () => {
    expect(refused(503, "service-unavailable").kind).toBe("retry");
    expect(decide({ kind: "refused", error: unreachable() }, first).kind).toBe("retry");
  });

  test("waits as long as it is told to", () => {
    expect(refused(429, "too-many-requests", { retryAfter: 9 })).toMatchObject({ kind: "retry", delay: 9_000 });
  });
});

describe("the notice over the picture", () => {
  const stopped = { status: "stopped", stop: { title: "t", message: "m", action: "wake" } } as const;

  test("is absent while connected", () => {
    expect(noticeFor({ status: "connected" }, aSession())).toBeNull();
  });

  test("offers to wake a session that hibernated while watched, and says why", () => {
    const session = aSession({ state: "hibernated", reason: "idle" });
    expect(noticeFor(stopped, session)).toMatchObject({ action: "wake", message: "Nobody used it for a while.", busy: false });
  });

  test("waits with a session that is being woken", () => {
    expect(noticeFor(stopped, aSession({ state: "waking" }))).toMatchObject({ busy: true, action: null });
  });

  test("offers to launch again what has ended", () => {
    expect(noticeFor({ status: "reconnecting", why: "lost", attempt: 1 }, aSession({ state: "terminated" }))).toMatchObject({ action: "launch-again" });
  });

  test("waits for a cluster that does not answer, also when no ticket was given", () => {
    const session = aSession({ state: "unknown", reason: "cluster-offline" });
    expect(noticeFor(stopped, session)).toMatchObject({ title: "The cluster does not answer", busy: true, action: null });
    expect(noticeFor({ status: "reconnecting", why: "lost", attempt: 1 }, session)).toMatchObject({ busy: true, action: "try-now" });
  });

  test("never offers to wake a session that runs", () => {
    expect(noticeFor(stopped, aSession({ state: "running" }))).toMatchObject({ action: "reconnect" });
  });
});

test("a phone's keyboard becomes key symbols, erasing included", () => {
  expect(typedKeys(`${FILLER}aß€\n`)).toEqual([0x61, 0xdf, 0x010020ac, 0xff0d]);
  expect(typedKeys(FILLER.slice(0, -2))).toEqual([0xff08, 0xff08]);
});
