/** A control plane of a few lines: routes to answers, and event streams a test can write to. */
import type { TabPort } from "../api/auth-session";
import type { Session, User } from "../api/types";

export interface Call {
  method: string;
  path: string;
  query: string;
  body: unknown;
  headers: Headers;
}

type Answer = Response | Promise<Response>;
type Handler = (call: Call) => Answer;

export const json = (body: unknown, status = 200): Response =>
  new Response(status === 204 ? null : JSON.stringify(body), {
    status,
    headers: { "Content-Type": status >= 400 ? "application/problem+json" : "application/json" },
  });

export const problem = (status: number, code: string, detail: string, more: object = {}): Response =>
  json({ type: `https://streamspace.dev/problems/${code}`, title: code, status, code, detail, ...more }, status);

export class FakeApi {
  readonly calls: Call[] = [];
  readonly #handlers = new Map<string, Handler>();
  readonly #streams = new Map<string, ReadableStreamDefaultController<Uint8Array>[]>();

  /** `route` is a method and a path, for instance `GET /sessions`. */
  on(route: string, handler: Handler): this {
    this.#handlers.set(route, handler);
    return this;
  }

  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const request = input instanceof Request ? input : new Request(new URL(input, "http://localhost:3000"), init);
    const url = new URL(request.url);
    const path = url.pathname.replace("/api/v1", "");
    const text = await request.text();
    const call: Call = { method: request.method, path, query: url.search, body: text ? JSON.parse(text) : null, headers: request.headers };
    this.calls.push(call);
    const handler = this.#handlers.get(`${request.method} ${path}`);
    if (handler) return handler(call);
    if (path.endsWith("/events")) return this.#stream(path, request.signal);
    return problem(404, "not-found", `The test has no answer for ${request.method} ${path}.`);
  };

  /** Sends an event to everybody who follows `path`. */
  tell(path: string, id: number, name: string, data: unknown): void {
    const frame = new TextEncoder().encode(`id: ${id}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
    for (const stream of this.#streams.get(path) ?? []) stream.enqueue(frame);
  }

  followers(path: string): number {
    return this.#streams.get(path)?.length ?? 0;
  }

  callsTo(route: string): Call[] {
    return this.calls.filter(({ method, path }) => `${method} ${path}` === route);
  }

  #stream(path: string, signal: AbortSignal): Response {
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        const open = [...(this.#streams.get(path) ?? []), controller];
        this.#streams.set(path, open);
        signal.addEventListener("abort", () => {
          this.#streams.set(path, (this.#streams.get(path) ?? []).filter((other) => other !== controller));
          controller.error(signal.reason);
        });
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }
}

export const ada: User = {
  id: `usr-${"a".repeat(32)}`,
  username: "ada",
  displayName: "Ada Lovelace",
  email: null,
  role: "user",
  disabled: false,
  createdAt: "2026-01-01T00:00:00Z",
  updatedAt: "2026-01-01T00:00:00Z",
  lastLoginAt: null,
  version: 1,
};

export const signedIn = (accessToken = "token-1", expiresIn = 900) =>
  json({ accessToken, tokenType: "Bearer", expiresIn, refreshToken: null, refreshExpiresIn: 86_400, user: ada });

export function aSession(changes: Partial<Session> = {}): Session {
  return {
    id: "ada-desktop-00c0ffee",
    owner: { userId: ada.id, username: ada.username },
    templateId: "starter_desktop",
    templateName: "desktop",
    templateDisplayName: "Linux desktop",
    templateDigest: "0".repeat(64),
    clusterId: "local",
    state: "running",
    desired: "running",
    generation: 1,
    protocol: "vnc",
    resources: { cpu: "1000m", memory: "2Gi" },
    persistentHome: true,
    phases: [],
    createdAt: "2026-01-01T00:00:00Z",
    updatedAt: "2026-01-01T00:00:00Z",
    version: 1,
    ...changes,
  };
}

/** A browser with a single tab. */
export const loneTab: TabPort = {
  post: () => undefined,
  listen: () => undefined,
  exclusive: (_name, work) => work(),
};
