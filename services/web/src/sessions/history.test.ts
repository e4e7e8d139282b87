import { expect, test } from "vitest";
import type { HistoryEntry, SessionCommand } from "../api/types";
import { momentsOf } from "./history";

const command: SessionCommand = {
  id: "cmd-00000001",
  sessionId: "ada-desktop-00c0ffee",
  generation: 1,
  action: "start_session",
  state: "pending",
  attempt: 2,
  actor: { id: "usr-1", name: "ada" },
  createdAt: "2026-01-01T00:00:00Z",
  deadline: "2026-01-01T00:10:00Z",
  attempts: [],
};

function entry(changes: Partial<HistoryEntry>): HistoryEntry {
  return {
    eventId: "e",
    type: "session.state-changed.v1",
    sessionId: "ada-desktop-00c0ffee",
    at: "2026-01-01T00:00:00Z",
    actor: { id: "usr-1", name: "ada" },
    ...changes,
  };
}

test("history reads backwards, with who and what caused it", () => {
  const moments = momentsOf([
    entry({ eventId: "1", type: "session.created.v1", toState: "pending", traceId: "abc" }),
    entry({ eventId: "2", fromState: "pending", toState: "failed", message: "It broke.", actor: { id: "agent:lab/a" } }),
  ]);
  expect(moments.map(({ title }) => title)).toEqual(["Waiting → Failed", "Created"]);
  expect(moments[0]?.detail).toBe("It broke. · by agent:lab/a");
  expect(moments[1]?.detail).toBe("by ada · trace abc");
});

test("a command that goes on is told with its attempt", () => {
  const [moment] = momentsOf([entry({ type: "session.command-changed.v1", command })]);
  expect(moment?.title).toBe("Start session sent, attempt 2");
});

test("the command that was replaced is named where it had no effect", () => {
  const replaced: SessionCommand = { ...command, state: "superseded" };
  const [moment] = momentsOf([entry({ fromState: "pending", toState: "terminating", replaced })]);
  expect(moment?.detail).toContain("Start session replaced by a newer one");
});

test("dead letters and events of later versions have words too", () => {
  const moments = momentsOf([
    entry({ type: "session.command-died.v1", message: "The disk is full." }),
    entry({ type: "session.tagged.v1" }),
  ]);
  expect(moments.map(({ title }) => title)).toEqual(["Tagged", "A command gave up"]);
});
