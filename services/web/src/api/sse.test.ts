import { expect, test } from "vitest";
import { problem } from "../test/fake-api";
import { followEvents, retryPause, type ServerEvent } from "./sse";

function stream(...chunks: string[]): Response {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk));
      controller.close();
    },
  });
  return new Response(body);
}

/** Follows a server that gives these answers in turn; ends with the last. */
async function follow(...answers: (() => Response | Promise<Response>)[]) {
  const controller = new AbortController();
  const events: ServerEvent[] = [];
  const asked: (string | null)[] = [];
  const pauses: number[] = [];
  let refused: number | null = null;
  await followEvents({
    url: "/api/v1/events",
    signal: controller.signal,
    send: async (request) => {
      asked.push(request.headers.get("Last-Event-ID"));
      const answer = answers.shift();
      if (!answer) {
        controller.abort();
        return stream();
      }
      return answer();
    },
    onEvent: (event) => events.push(event),
    onRefused: (error) => (refused = error.status),
    sleep: async (milliseconds) => {
      pauses.push(milliseconds);
      await Promise.resolve();
    },
  });
  return { events, asked, pauses, refused: refused as number | null };
}

test("events are read across any split of the bytes, comments left out", async () => {
  const { events } = await follow(() =>
    stream('id: 7\nev', 'ent: state\ndata: {"a"', ":1}\n", "\n: still here\n\n", 'event: phase\ndata: {"b":"ü"}\n\n'),
  );
  expect(events).toEqual([
    { id: "7", name: "state", data: { a: 1 } },
    { id: null, name: "phase", data: { b: "ü" } },
  ]);
});

test("a stream that ends is resumed after the last event seen", async () => {
  const { asked } = await follow(
    () => stream("id: 5\ndata: 1\n\n", "id: 9\ndata: 2\n\n"),
    () => stream("id: 12\ndata: 3\n\n"),
  );
  expect(asked).toEqual([null, "9", "12"]);
});

test("a stream that breaks in the middle of an event is resumed before that event", async () => {
  const { asked, events } = await follow(() => stream("id: 5\ndata: 1\n\n", "id: 6\ndata: 2"));
  expect(events.map(({ id }) => id)).toEqual(["5"]);
  expect(asked).toEqual([null, "5"]);
});

test("the pause grows while nothing comes, and begins anew after an event", async () => {
  const away = () => Promise.reject(new TypeError("no network"));
  const { pauses } = await follow(away, away, away, () => stream("id: 1\ndata: 1\n\n"), away);
  const expected = [500, 1_000, 2_000, 500, 1_000];
  expect(pauses.slice(0, 5).every((pause, index) => Math.abs(pause / (expected[index] ?? 1) - 1) <= 0.25)).toBe(true);
});

test("the pause has an upper end", () => {
  expect(retryPause(1)).toBe(500);
  expect(retryPause(100)).toBe(10_000);
});

test("a server that answers 503 is asked again, one that answers 404 is not", async () => {
  const { asked, refused } = await follow(
    () => problem(503, "service-unavailable", "Not now."),
    () => problem(404, "not-found", "No such session."),
  );
  expect(asked).toHaveLength(2);
  expect(refused).toBe(404);
});

test("data that is no JSON is given as null instead of breaking the stream", async () => {
  const { events } = await follow(() => stream("data: {oops\n\n", "data: 1\n\n"));
  expect(events.map(({ data }) => data)).toEqual([null, 1]);
});
