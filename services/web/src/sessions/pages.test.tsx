import { act, screen, waitFor, within } from "@testing-library/react";
import { userEvent } from "@testing-library/user-event";
import { expect, test } from "vitest";
import type { Session } from "../api/types";
import { aSession, FakeApi, json, problem, signedIn } from "../test/fake-api";
import { renderApp } from "../test/render";
import { currentSessions, matching } from "./sessions-page";

const id = "ada-desktop-00c0ffee";
const EVENTS = `/sessions/${id}/events`;

function control(session: Session) {
  return new FakeApi()
    .on("POST /auth/refresh", () => signedIn())
    .on("GET /sessions", () => json({ items: [session], nextCursor: null }))
    .on(`GET /sessions/${id}`, () => json(session))
    .on(`GET /sessions/${id}/commands`, () => json({ items: [] }));
}

const stateEvent = (session: Session) => ({ sessionId: session.id, session });

test("a start's phases appear as they happen, then the viewer opens by itself", async () => {
  const fake = control(aSession({ state: "starting" }));
  const { router } = renderApp(fake, { pathname: `/sessions/${id}`, state: { launchedAt: Date.now() } });
  await screen.findByTestId("launch-progress");
  await waitFor(() => expect(fake.followers(EVENTS)).toBe(1));
  act(() => fake.tell(EVENTS, 1, "phase", { sessionId: id, generation: 1, timing: { phase: "created", elapsedMs: 420, ongoing: false } }));
  await waitFor(() => expect(screen.getByTestId("phase-created").dataset.state).toBe("done"));
  expect(screen.getByTestId("phase-created").textContent).toContain("420 ms");
  expect(screen.getByTestId("phase-started").dataset.state).toBe("active");
  act(() => fake.tell(EVENTS, 2, "state", stateEvent(aSession({ state: "running", version: 2 }))));
  await waitFor(() => expect(router.state.location.pathname).toBe(`/sessions/${id}/view`), { timeout: 3_000 });
});

test("a failed start shows the reason and the next step", async () => {
  const failed = aSession({ state: "failed", reason: "missing-program", message: "`openbox` is not installed." });
  renderApp(control(failed), `/sessions/${id}`);
  const alert = await screen.findByRole("alert");
  expect(alert.textContent).toContain("`openbox` is not installed.");
  expect(alert.textContent).toContain("Ask an administrator to install it");
  expect(screen.getByRole("link", { name: "Launch again" }).getAttribute("href")).toBe("/?launch=starter_desktop");
});

test("a session that was running all along is not opened unasked", async () => {
  const { router } = renderApp(control(aSession()), `/sessions/${id}`);
  await screen.findByTestId("session-open");
  expect(router.state.location.pathname).toBe(`/sessions/${id}`);
});

test("the list follows the event stream and offers what the state allows", async () => {
  const fake = control(aSession());
  renderApp(fake, "/sessions");
  const row = within(await screen.findByTestId(`session-row-${id}`));
  expect(row.getByTestId("session-state").textContent).toBe("Running");
  await waitFor(() => expect(fake.followers("/events")).toBe(1));
  act(() => fake.tell("/events", 3, "state", stateEvent(aSession({ state: "hibernated", version: 2 }))));
  await row.findByTestId("session-wake");
  expect(row.getByTestId("session-state").textContent).toBe("Hibernated");
  expect(row.queryByTestId("session-open")).toBeNull();
});

test("a list that was asked for before a session was there is asked for again", async () => {
  const known: Session[] = [];
  const late: (() => void)[] = [];
  const fake = control(aSession()).on("GET /sessions", () => {
    const items = [...known];
    return new Promise((resolve) => late.push(() => resolve(json({ items, nextCursor: null }))));
  });
  renderApp(fake, "/sessions");
  await waitFor(() => expect(fake.followers("/events")).toBe(1));
  await waitFor(() => expect(late).toHaveLength(2));
  known.push(aSession());
  act(() => fake.tell("/events", 1, "created", stateEvent(aSession())));
  await waitFor(() => expect(late).toHaveLength(4));
  act(() => late.forEach((answer) => answer()));
  await screen.findByTestId(`session-row-${id}`);
});

test("deleting asks first and keeps the home unless told otherwise", async () => {
  const fake = control(aSession()).on(`DELETE /sessions/${id}`, () =>
    json({ session: aSession({ state: "terminating", version: 2 }), commandId: "cmd-00000001" }, 202),
  );
  renderApp(fake, "/sessions");
  const user = userEvent.setup();
  await user.click(await screen.findByTestId("session-delete"));
  expect(fake.callsTo(`DELETE /sessions/${id}`)).toHaveLength(0);
  await user.click(await screen.findByTestId("confirm-delete"));
  await waitFor(() => expect(fake.callsTo(`DELETE /sessions/${id}`)).toHaveLength(1));
  await waitFor(() => expect(screen.getByTestId("session-state").textContent).toBe("Deleting"));
});

test.each([
  ["a double click on delete", "running", "session-delete", "confirm-delete", `DELETE /sessions/${id}`],
  ["a double click on wake", "hibernated", null, "session-wake", `POST /sessions/${id}/wake`],
] as const)("%s asks for it once", async (_name, state, first, button, call) => {
  const fake = control(aSession({ state })).on(call, () => json({ session: aSession({ state: "waking", version: 2 }), commandId: "cmd-00000001" }, 202));
  renderApp(fake, "/sessions");
  if (first) await userEvent.click(await screen.findByTestId(first));
  const clicked = await screen.findByTestId(button);
  // Both in one turn, as a browser may deliver them: no render comes between.
  clicked.click();
  clicked.click();
  await waitFor(() => expect(fake.callsTo(call).length).toBeGreaterThan(0));
  await new Promise((resolve) => setTimeout(resolve, 0));
  expect(fake.callsTo(call)).toHaveLength(1);
});

test("an empty list says what to do next, a failing one how to retry", async () => {
  const empty = control(aSession()).on("GET /sessions", () => json({ items: [], nextCursor: null }));
  const { unmount } = renderApp(empty, "/sessions");
  expect((await screen.findByRole("link", { name: "Launch something" })).getAttribute("href")).toBe("/");
  unmount();
  let broken = true;
  const failing = control(aSession()).on("GET /sessions", () =>
    broken ? problem(403, "forbidden", "Not for you.") : json({ items: [aSession()], nextCursor: null }),
  );
  renderApp(failing, "/sessions");
  expect((await screen.findByRole("alert")).textContent).toContain("Not for you.");
  broken = false;
  await userEvent.click(screen.getByRole("button", { name: "Try again" }));
  await screen.findByTestId(`session-row-${id}`);
});

test("the filter takes any word of what is shown, and hides what has ended", () => {
  const sessions = [aSession(), aSession({ id: "b", state: "terminated" }), aSession({ id: "c", clusterId: "berlin" })];
  expect(matching(sessions, "", false)).toHaveLength(2);
  expect(matching(sessions, "linux BERLIN", false).map(({ id: found }) => found)).toEqual(["c"]);
  expect(matching(sessions, "", true)).toHaveLength(3);
});

test("what failed within a day is shown among the living until it is dismissed", () => {
  const now = Date.parse("2026-01-02T12:00:00Z");
  const living = [aSession({ id: "old", createdAt: "2026-01-01T00:00:00Z" })];
  const failed = (id: string, terminatedAt: string) => aSession({ id, state: "failed", createdAt: terminatedAt, terminatedAt });
  const all = [failed("fresh", "2026-01-02T11:00:00Z"), failed("stale", "2026-01-01T11:00:00Z"), failed("seen", "2026-01-02T10:00:00Z")];
  expect(currentSessions(living, all, new Set(["seen"]), now).map(({ id: shown }) => shown)).toEqual(["fresh", "old"]);
});

test("dismissing a failed session hides it for good", async () => {
  const fake = control(aSession({ state: "failed", updatedAt: new Date().toISOString(), message: "It broke." }));
  const first = renderApp(fake, "/sessions");
  expect((await screen.findByTestId(`session-row-${id}`)).textContent).toContain("It broke.");
  await userEvent.click(screen.getByTestId("session-dismiss"));
  await screen.findByText("No sessions yet");
  first.unmount();
  renderApp(fake, "/sessions");
  await screen.findByText("No sessions yet");
});
