/**
 * Server-sent events over fetch, because EventSource cannot send an Authorization header.
 *
 * Resumes with `Last-Event-ID` and never gives up while the server may come back; the
 * pause between tries grows and is jittered, and begins anew once an event arrives.
 */
import { createParser } from "eventsource-parser";
import { jittered } from "../lib/random";
import { ApiError, problemFrom } from "./problem";

export interface ServerEvent {
  id: string | null;
  name: string;
  data: unknown;
}

export type StreamStatus = "connecting" | "open" | "waiting";

export interface EventStreamOptions {
  url: string;
  send: (request: Request) => Promise<Response>;
  onEvent: (event: ServerEvent) => void;
  onStatus?: (status: StreamStatus) => void;
  /** Called once when the server refuses for good (404, 403); the stream has ended then. */
  onRefused?: (error: ApiError) => void;
  signal: AbortSignal;
  sleep?: (milliseconds: number, signal: AbortSignal) => Promise<void>;
  /** A stream silent for this long is taken for dead; the server sends a sign of life each 15 s. */
  silenceMs?: number;
}

const PAUSES = [500, 1_000, 2_000, 5_000, 10_000];

/** The pause before try number `failures` (1 is the first retry), before jitter. */
export function retryPause(failures: number): number {
  return PAUSES[Math.min(failures, PAUSES.length) - 1] ?? 500;
}

export async function followEvents(options: EventStreamOptions): Promise<void> {
  const { signal, onStatus, sleep = pause } = options;
  let lastId: string | null = null;
  let failures = 0;
  const ended = () => signal.aborted;
  while (!ended()) {
    onStatus?.("connecting");
    try {
      await readOnce(options, lastId, (event) => {
        if (event.id !== null) lastId = event.id;
        failures = 0;
        options.onEvent(event);
      });
      // The server ends a stream now and then, and on its restart: that is no failure.
    } catch (error) {
      if (ended()) return;
      if (error instanceof ApiError && (error.status === 404 || error.status === 403 || error.status === 401)) {
        options.onRefused?.(error);
        return;
      }
    }
    failures += 1;
    onStatus?.("waiting");
    await sleep(jittered(retryPause(failures)), signal);
  }
}

async function readOnce(
  { url, send, signal, onStatus, silenceMs = 45_000 }: EventStreamOptions,
  lastId: string | null,
  onEvent: (event: ServerEvent) => void,
): Promise<void> {
  const silence = new AbortController();
  let watchdog = setTimeout(() => silence.abort(), silenceMs);
  const headers: Record<string, string> = { Accept: "text/event-stream" };
  if (lastId !== null) headers["Last-Event-ID"] = lastId;
  try {
    const response = await send(
      new Request(new URL(url, globalThis.location.origin), {
        headers,
        cache: "no-store",
        signal: AbortSignal.any([signal, silence.signal]),
      }),
    );
    if (!response.ok || !response.body) {
      throw problemFrom(response.status, await response.json().catch(() => null));
    }
    onStatus?.("open");
    const parser = createParser({
      onEvent: ({ id, event, data }) =>
        onEvent({ id: id ?? null, name: event ?? "message", data: parseJson(data) }),
    });
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(() => silence.abort(), silenceMs);
      parser.feed(decoder.decode(value, { stream: true }));
    }
  } finally {
    clearTimeout(watchdog);
  }
}

function parseJson(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
