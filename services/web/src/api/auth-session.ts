/**
 * Who is signed in, and the access token.
 *
 * The access token lives in memory only. The refresh token is an HttpOnly cookie that
 * no script can read; it is replaced by each use, and using it twice ends the sign-in.
 * So a refresh happens once at a time: once per tab by a shared promise, and once
 * across tabs by a lock, after which the other tabs take the token the first one got.
 */
import { ApiError, problemFrom, unreachable } from "./problem";
import type { TokenAnswer, User } from "./types";

export type AuthStatus = "starting" | "unreachable" | "signed-out" | "signed-in";

export interface AuthState {
  status: AuthStatus;
  user: User | null;
  /** How the last sign-in ended: by itself, or because somebody signed out; null before any. */
  ended: SignInEnd | null;
}

export type SignInEnd = "expired" | "left";

interface Tokens {
  accessToken: string;
  /** By this machine's clock, in milliseconds. */
  expiresAt: number;
  user: User;
}

type TabMessage = { kind: "tokens"; tokens: Tokens } | { kind: "signed-out"; ended: SignInEnd };

/** What other tabs are told, and how only one of them refreshes at a time. */
export interface TabPort {
  post(message: unknown): void;
  listen(handle: (message: unknown) => void): void;
  exclusive<T>(name: string, work: () => Promise<T>): Promise<T>;
}

export interface AuthOptions {
  fetch: typeof globalThis.fetch;
  tabs: TabPort;
  now?: () => number;
  /** Remembers only that somebody signed in here, to save a refresh that must fail. */
  hint?: { get(): boolean; set(signedIn: boolean): void };
}

/** A token that has less than this left is refreshed before it is used. */
const SPARE_MS = 30_000;
const RETRY_MS = 5_000;

export class AuthSession {
  #state: AuthState = { status: "starting", user: null, ended: null };
  #tokens: Tokens | null = null;
  #refreshing: Promise<Tokens> | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #listeners = new Set<() => void>();
  readonly #fetch: typeof globalThis.fetch;
  readonly #tabs: TabPort;
  readonly #now: () => number;
  readonly #hint: NonNullable<AuthOptions["hint"]>;

  constructor({ fetch, tabs, now = Date.now, hint = { get: () => true, set: () => undefined } }: AuthOptions) {
    this.#fetch = fetch;
    this.#tabs = tabs;
    this.#now = now;
    this.#hint = hint;
    tabs.listen((message) => this.#hear(message as TabMessage));
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly getState = (): AuthState => this.#state;

  /** Finds out whether this browser is signed in still. */
  async start(): Promise<void> {
    if (!this.#hint.get()) {
      this.#publish({ status: "signed-out", user: null, ended: null });
      return;
    }
    try {
      await this.refresh();
    } catch (error) {
      if (error instanceof ApiError && isRefusal(error)) return;
      if (this.#tokens) return;
      this.#publish({ status: "unreachable", user: null, ended: null });
      this.#schedule(RETRY_MS, () => void this.start());
    }
  }

  async signIn(username: string, password: string): Promise<void> {
    const answer = await this.#post("login", { username, password, delivery: "cookie" });
    this.#take(this.#tokensOf(answer), true);
  }

  /** Ends the sign-in here and in every other tab, also when the server cannot be told. */
  async signOut(): Promise<void> {
    try {
      await this.#post("logout");
    } catch {
      // The cookie may be gone or the server away; this browser is signed out either way.
    }
    this.#drop("left", true);
  }

  /** A token good for at least a moment. Refreshes first where needed. */
  async token(): Promise<string> {
    const tokens = this.#tokens;
    if (tokens && tokens.expiresAt - this.#now() > SPARE_MS) return tokens.accessToken;
    return (await this.refresh()).accessToken;
  }

  /** After a 401: a token other than the refused one, from another tab or by a refresh. */
  async replace(refused: string): Promise<string> {
    if (this.#tokens && this.#tokens.accessToken !== refused) return this.#tokens.accessToken;
    return (await this.refresh()).accessToken;
  }

  updateUser(user: User): void {
    if (!this.#tokens) return;
    this.#tokens = { ...this.#tokens, user };
    this.#publish({ status: "signed-in", user, ended: null });
  }

  async refresh(): Promise<Tokens> {
    this.#refreshing ??= this.#refreshOnce().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #refreshOnce(): Promise<Tokens> {
    const before = this.#tokens?.accessToken;
    return this.#tabs.exclusive("streamspace-refresh", async () => {
      // Another tab may have refreshed while this one waited for the lock.
      const now = this.#tokens;
      if (now && now.accessToken !== before) return now;
      try {
        const tokens = this.#tokensOf(await this.#post("refresh"));
        this.#take(tokens, true);
        return tokens;
      } catch (error) {
        if (error instanceof ApiError && isRefusal(error)) this.#drop("expired", false);
        throw error;
      }
    });
  }

  async #post(action: "login" | "refresh" | "logout", body?: unknown): Promise<unknown> {
    let response: Response;
    try {
      response = await this.#fetch(`/api/v1/auth/${action}`, {
        method: "POST",
        credentials: "same-origin",
        headers: {
          "X-StreamSpace-Request": "1",
          ...(body !== undefined && { "Content-Type": "application/json" }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
    } catch {
      throw unreachable();
    }
    const content: unknown = await response.json().catch(() => null);
    if (!response.ok) throw problemFrom(response.status, content, response.headers.get("Retry-After"));
    return content;
  }

  #tokensOf(answer: unknown): Tokens {
    const { accessToken, expiresIn, user } = answer as TokenAnswer;
    return { accessToken, expiresAt: this.#now() + expiresIn * 1000, user };
  }

  #take(tokens: Tokens, tell: boolean): void {
    this.#tokens = tokens;
    this.#hint.set(true);
    if (tell) this.#tabs.post({ kind: "tokens", tokens } satisfies TabMessage);
    // A little apart from the other tabs; whoever comes later finds the new token.
    const left = tokens.expiresAt - this.#now();
    this.#schedule(Math.max(1_000, left - SPARE_MS - left * 0.1 * Math.random()), () => void this.#renew());
    this.#publish({ status: "signed-in", user: tokens.user, ended: null });
  }

  async #renew(): Promise<void> {
    try {
      await this.token();
    } catch {
      if (this.#tokens) this.#schedule(RETRY_MS, () => void this.#renew());
    }
  }

  #drop(ended: SignInEnd, tell: boolean): void {
    clearTimeout(this.#timer);
    this.#tokens = null;
    this.#hint.set(false);
    if (tell) this.#tabs.post({ kind: "signed-out", ended } satisfies TabMessage);
    this.#publish({ status: "signed-out", user: null, ended });
  }

  #hear(message: TabMessage): void {
    if (message.kind === "tokens") this.#take(message.tokens, false);
    else if (this.#state.status !== "signed-out") this.#drop(message.ended, false);
  }

  #schedule(delay: number, work: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(work, Math.min(delay, 2_000_000_000));
  }

  #publish(state: AuthState): void {
    this.#state = state;
    for (const listener of this.#listeners) listener();
  }
}

/** The server said no, as opposed to not answering. */
function isRefusal(error: ApiError): boolean {
  return error.status === 401 || error.status === 403;
}

/** Tabs of one browser: BroadcastChannel and Web Locks, each only where the browser has it. */
export function browserTabs(): TabPort {
  const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("streamspace-auth") : null;
  const locks = navigator.locks as LockManager | undefined;
  return {
    post: (message) => channel?.postMessage(message),
    listen: (handle) => {
      channel?.addEventListener("message", (event: MessageEvent<unknown>) => handle(event.data));
    },
    exclusive: async (name, work) => (locks ? await locks.request(name, work) : work()),
  };
}

const HINT_KEY = "streamspace-signed-in";

export const browserHint: NonNullable<AuthOptions["hint"]> = {
  get: () => {
    try {
      return localStorage.getItem(HINT_KEY) === "1";
    } catch {
      return true;
    }
  },
  set: (signedIn) => {
    try {
      if (signedIn) localStorage.setItem(HINT_KEY, "1");
      else localStorage.removeItem(HINT_KEY);
    } catch {
      // Storage may be blocked; a refresh at each start is all it costs.
    }
  },
};
