import { describe, expect, test, vi } from "vitest";
import { FakeApi, json, loneTab, problem, signedIn } from "../test/fake-api";
import { AuthSession, type TabPort } from "./auth-session";
import { authorizedFetch } from "./client";

const refused = () => problem(401, "unauthenticated", "There is no refresh token; sign in.");

function session(fake: FakeApi, tabs: TabPort = loneTab, now?: () => number) {
  return new AuthSession({ fetch: fake.fetch, tabs, now });
}

/** Several tabs of one browser: they hear each other and share one lock. */
function tabs() {
  const listeners: ((message: unknown) => void)[] = [];
  let queue: Promise<unknown> = Promise.resolve();
  return (): TabPort => {
    const heard: ((message: unknown) => void)[] = [];
    return {
      listen: (handle) => {
        heard.push(handle);
        listeners.push(handle);
      },
      post: (message) => listeners.filter((listener) => !heard.includes(listener)).forEach((listener) => listener(message)),
      exclusive: (_name, work) => {
        const turn = queue.then(work);
        queue = turn.catch(() => undefined);
        return turn;
      },
    };
  };
}

test("calls made at once share a single refresh", async () => {
  const fake = new FakeApi().on("POST /auth/refresh", () => signedIn());
  const auth = session(fake);
  const found = await Promise.all([auth.token(), auth.token(), auth.token()]);
  expect(found).toEqual(["token-1", "token-1", "token-1"]);
  expect(fake.callsTo("POST /auth/refresh")).toHaveLength(1);
  expect(fake.calls[0]?.headers.get("X-StreamSpace-Request")).toBe("1");
});

test("tabs that refresh at once spend the cookie once", async () => {
  let count = 0;
  const fake = new FakeApi().on("POST /auth/refresh", () => {
    count += 1;
    return signedIn(`token-${count}`);
  });
  const tab = tabs();
  const [first, second] = [session(fake, tab()), session(fake, tab())];
  const found = await Promise.all([first.token(), second.token()]);
  expect(found).toEqual(["token-1", "token-1"]);
  expect(count).toBe(1);
});

test("a token is refreshed shortly before it expires", async () => {
  let now = 0;
  const fake = new FakeApi()
    .on("POST /auth/login", () => signedIn("first", 900))
    .on("POST /auth/refresh", () => signedIn("second", 900));
  const auth = session(fake, loneTab, () => now);
  await auth.signIn("ada", "secret");
  now = 800_000;
  expect(await auth.token()).toBe("first");
  now = 880_000;
  expect(await auth.token()).toBe("second");
});

test("signing in asks for the refresh token as a cookie", async () => {
  const fake = new FakeApi().on("POST /auth/login", () => signedIn());
  const auth = session(fake);
  await auth.signIn("ada", "secret");
  expect(fake.calls[0]?.body).toEqual({ username: "ada", password: "secret", delivery: "cookie" });
  expect(auth.getState()).toMatchObject({ status: "signed-in", user: { username: "ada" } });
});

test("a refused refresh ends the sign-in as expired", async () => {
  const fake = new FakeApi().on("POST /auth/refresh", refused);
  const auth = session(fake);
  await auth.start();
  expect(auth.getState()).toEqual({ status: "signed-out", user: null, ended: "expired" });
});

test("a server that does not answer is no reason to sign out", async () => {
  const fake = new FakeApi().on("POST /auth/refresh", () => Promise.reject(new TypeError("no network")));
  const auth = session(fake);
  await auth.start();
  expect(auth.getState().status).toBe("unreachable");
  await auth.signOut();
});

test("signing out signs out every tab, also when the server is away", async () => {
  const fake = new FakeApi()
    .on("POST /auth/login", () => signedIn())
    .on("POST /auth/logout", () => Promise.reject(new TypeError("no network")));
  const tab = tabs();
  const [first, second] = [session(fake, tab()), session(fake, tab())];
  await first.signIn("ada", "secret");
  expect(second.getState().status).toBe("signed-in");
  await second.signOut();
  expect(first.getState()).toEqual({ status: "signed-out", user: null, ended: "left" });
});

describe("a call", () => {
  test("that meets a 401 gets a fresh token and is sent once more, body included", async () => {
    const fake = new FakeApi()
      .on("POST /auth/login", () => signedIn("old"))
      .on("POST /auth/refresh", () => signedIn("new"))
      .on("POST /things", ({ headers }) => (headers.get("Authorization") === "Bearer new" ? json({ ok: true }) : refused()));
    const auth = session(fake);
    await auth.signIn("ada", "secret");
    const send = authorizedFetch(auth, fake.fetch);
    const response = await send(new Request("http://localhost:3000/api/v1/things", { method: "POST", body: '{"a":1}' }));
    expect(response.status).toBe(200);
    expect(fake.callsTo("POST /things").map(({ body }) => body)).toEqual([{ a: 1 }, { a: 1 }]);
  });

  test("that meets a second 401 is not repeated for ever", async () => {
    const fake = new FakeApi().on("POST /auth/refresh", () => signedIn()).on("GET /things", refused);
    const send = authorizedFetch(session(fake), fake.fetch);
    const response = await send(new Request("http://localhost:3000/api/v1/things"));
    expect(response.status).toBe(401);
    expect(fake.callsTo("GET /things")).toHaveLength(2);
  });

  test("that reaches nobody fails as unreachable", async () => {
    const fake = new FakeApi()
      .on("POST /auth/refresh", () => signedIn())
      .on("GET /things", () => Promise.reject(new TypeError("no network")));
    const send = authorizedFetch(session(fake), fake.fetch);
    await expect(send(new Request("http://localhost:3000/api/v1/things"))).rejects.toMatchObject({ code: "unreachable" });
  });
});

test("the token of another tab saves a refresh after a 401", async () => {
  const fake = new FakeApi().on("POST /auth/refresh", vi.fn(() => signedIn("never")));
  let tell: (message: unknown) => void = () => undefined;
  const auth = session(fake, { ...loneTab, listen: (handle) => (tell = handle) });
  tell({ kind: "tokens", tokens: { accessToken: "theirs", expiresAt: Date.now() + 900_000, user: null } });
  expect(await auth.replace("mine")).toBe("theirs");
  expect(fake.calls).toEqual([]);
});
