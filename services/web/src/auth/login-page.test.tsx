import { screen, waitFor } from "@testing-library/react";
import { userEvent } from "@testing-library/user-event";
import { expect, test } from "vitest";
import { FakeApi, json, problem, signedIn } from "../test/fake-api";
import { renderApp } from "../test/render";

const noCookie = () => problem(401, "unauthenticated", "There is no refresh token; sign in.");

function control() {
  return new FakeApi()
    .on("POST /auth/refresh", noCookie)
    .on("GET /sessions", () => json({ items: [], nextCursor: null }))
    .on("GET /templates", () => json({ items: [], nextCursor: null, total: 0, categories: {} }));
}

async function fillIn(username: string, password: string) {
  const user = userEvent.setup();
  await user.type(await screen.findByTestId("login-username"), username);
  await user.type(screen.getByTestId("login-password"), password);
  await user.click(screen.getByTestId("login-submit"));
}

test("signing in leads back to the page that was asked for", async () => {
  const fake = control().on("POST /auth/login", () => signedIn());
  const { router } = renderApp(fake, "/sessions?show=all");
  await fillIn("ada", "correct horse");
  await screen.findByRole("heading", { name: "My sessions" });
  expect(router.state.location.pathname + router.state.location.search).toBe("/sessions?show=all");
});

test.each([
  ["a wrong password", problem(401, "invalid-credentials", "No."), "The user name or password is wrong"],
  ["a disabled account", problem(403, "account-disabled", "No."), "This account is disabled"],
  ["too many attempts", problem(429, "too-many-requests", "No.", { retryAfter: 42 }), "Wait 42 seconds"],
])("%s is told in clear words", async (_name, answer, words) => {
  renderApp(control().on("POST /auth/login", () => answer.clone()), "/login");
  await fillIn("ada", "wrong");
  expect((await screen.findByTestId("login-error")).textContent).toContain(words);
});

test("an ended sign-in says so and keeps the password field ready", async () => {
  renderApp(control(), "/");
  expect(await screen.findByText(/You were signed out/)).toBeTruthy();
  await waitFor(() => expect(document.title).toContain("Sign in"));
});
