import { screen, waitFor, within } from "@testing-library/react";
import { userEvent } from "@testing-library/user-event";
import { expect, test } from "vitest";
import type { Cluster, DeadLetter } from "../api/types";
import { ada, aSession, FakeApi, json, problem } from "../test/fake-api";
import { renderApp } from "../test/render";

const id = "cmd-0a1b2c3d.1";

function aLetter(changes: Partial<DeadLetter> = {}): DeadLetter {
  return {
    id,
    clusterId: "local",
    sessionId: "ada-desktop-00c0ffee",
    commandId: "cmd-0a1b2c3d",
    generation: 1,
    attempt: 1,
    action: "start_session",
    cause: "terminated",
    reason: "The disk is full.",
    originStream: "COMMANDS",
    originSequence: 7,
    deliveries: 2,
    state: "open",
    diedAt: "2026-01-01T00:00:00Z",
    ...changes,
  };
}

const cluster: Cluster = {
  id: "local",
  name: "Local",
  presence: "offline",
  runningSessions: 1,
  reservedSessions: 2,
  waitingCommands: 3,
  oldestWaitingSeconds: 75,
  agents: 0,
  instances: [],
  createdAt: "2026-01-01T00:00:00Z",
  versionNumber: 1,
};

function control(role: "operator" | "user", letters: DeadLetter[]) {
  const user = { ...ada, role };
  return new FakeApi()
    .on("POST /auth/refresh", () =>
      json({ accessToken: "t", tokenType: "Bearer", expiresIn: 900, refreshToken: null, refreshExpiresIn: 86_400, user }),
    )
    .on("GET /sessions", () => json({ items: [], nextCursor: null }))
    .on("GET /clusters", () => json({ items: [cluster] }))
    .on("GET /dead-letters", () => json({ items: letters, nextCursor: null }));
}

test("clusters show how many commands wait and for how long", async () => {
  renderApp(control("operator", []), "/admin/operations");
  const row = within(await screen.findByTestId("operations-cluster-local"));
  row.getByText("Offline");
  row.getByText("3, the oldest for 1 min 15 s");
  await screen.findByText("No command has given up");
});

test("a cluster whose access is revoked is marked, and its commands wait for an enrolment", async () => {
  renderApp(
    control("operator", []).on("GET /clusters", () => json({ items: [{ ...cluster, revokedAt: "2026-01-02T00:00:00Z" }] })),
    "/admin/operations",
  );
  const row = within(await screen.findByTestId("operations-cluster-local"));
  row.getByText("Offline");
  row.getByText("Access revoked");
  row.getByText("3 for a new enrolment, the oldest for 1 min 15 s");
});

test("a dead letter says what gave up, why, and how often it was tried", async () => {
  renderApp(control("operator", [aLetter()]), "/admin/operations");
  const letter = await screen.findByTestId(`letter-${id}`);
  expect(letter.textContent).toContain("Start session");
  expect(letter.textContent).toContain("Its agent refused it: The disk is full.");
  expect(letter.textContent).toContain("delivered 2 times");
  expect(letter.textContent).toContain("COMMANDS #7");
});

test("retrying and discarding ask first", async () => {
  const letters = [aLetter()];
  const retry = `POST /dead-letters/${id}/retry`;
  const fake = control("operator", letters).on(retry, () => {
    letters.pop();
    return json({ letter: aLetter({ state: "retried" }), session: aSession({ state: "pending" }), commandId: "cmd-00000002" }, 202);
  });
  renderApp(fake, "/admin/operations");
  const user = userEvent.setup();
  await user.click(await screen.findByTestId("letter-discard"));
  await user.click(await screen.findByRole("button", { name: "Cancel" }));
  await user.click(screen.getByTestId("letter-retry"));
  expect(fake.callsTo(retry)).toHaveLength(0);
  const dialog = within(await screen.findByRole("dialog", { name: "Retry this command?" }));
  await user.click(dialog.getByRole("button", { name: "Retry" }));
  await waitFor(() => expect(fake.callsTo(retry)).toHaveLength(1));
  await screen.findByText("No command has given up");
  expect(fake.calls.filter(({ path }) => path.endsWith("/discard"))).toHaveLength(0);
});

test("a retry that makes no sense any more says so", async () => {
  const fake = control("operator", [aLetter()]).on(`POST /dead-letters/${id}/retry`, () =>
    problem(409, "conflict", "The session has ended. Create another one, and discard this."),
  );
  renderApp(fake, "/admin/operations");
  const user = userEvent.setup();
  await user.click(await screen.findByTestId("letter-retry"));
  const dialog = within(await screen.findByRole("dialog", { name: "Retry this command?" }));
  await user.click(dialog.getByRole("button", { name: "Retry" }));
  await screen.findByText(/The session has ended/);
  screen.getByTestId(`letter-${id}`);
});

test("what could not be read can only be discarded", async () => {
  renderApp(control("operator", [aLetter({ commandId: null, action: null })]), "/admin/operations");
  await screen.findByText("Unreadable command");
  expect(screen.getByTestId<HTMLButtonElement>("letter-retry").disabled).toBe(true);
  expect(screen.getByTestId<HTMLButtonElement>("letter-discard").disabled).toBe(false);
});
