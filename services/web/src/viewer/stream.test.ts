import { expect, test, vi } from "vitest";
import type { Connection } from "../api/types";
import { DesktopStream, type RfbClass, type StreamPorts } from "./stream";

class FakeSocket extends EventTarget {
  binaryType = "blob";
}

/** Stands for noVNC's RFB: the test says what happens to it. */
class FakeRfb {
  static made: FakeRfb[] = [];
  viewOnly = false;
  scaleViewport = false;
  resizeSession = false;
  focus = vi.fn();
  disconnect = vi.fn();
  readonly listeners = new Map<string, (event: unknown) => void>();
  readonly socket: EventTarget;

  constructor(_target: Element, socket: WebSocket) {
    this.socket = socket;
    FakeRfb.made.push(this);
  }

  addEventListener(type: string, listener: (event: unknown) => void) {
    this.listeners.set(type, listener);
  }

  toDataURL() {
    return `data:image/jpeg;base64,${"x".repeat(200)}`;
  }

  open() {
    this.listeners.get("connect")?.({});
  }

  close(code: number, reason = "") {
    this.socket.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
    this.listeners.get("disconnect")?.({ detail: { clean: false } });
  }
}

function desktop() {
  FakeRfb.made = [];
  const connect = vi.fn<StreamPorts["connect"]>((role) =>
    Promise.resolve({ url: "ws://relay/streams/x", protocols: ["binary", "streamspace.ticket.t"], ticket: "t", role, protocol: "vnc", expiresAt: "" } satisfies Connection),
  );
  const stream = new DesktopStream(
    {} as Element,
    {
      connect,
      openSocket: () => new FakeSocket() as unknown as WebSocket,
      loadRfb: () => Promise.resolve(FakeRfb as unknown as RfbClass),
      onClipboard: () => undefined,
    },
    { fit: "resize", quality: "balanced" },
  );
  const made = (count: number) => vi.waitFor(() => expect(FakeRfb.made).toHaveLength(count)).then(() => FakeRfb.made[count - 1] as FakeRfb);
  return { stream, connect, made };
}

test("a connected desktop has the keyboard and follows the window's size", async () => {
  const { stream, made } = desktop();
  stream.start();
  const rfb = await made(1);
  rfb.open();
  expect(stream.getState().status).toBe("connected");
  expect(rfb.focus).toHaveBeenCalled();
  expect([rfb.resizeSession, rfb.scaleViewport]).toEqual([true, false]);
  stream.stop();
});

test("a lost connection comes back by itself with a fresh ticket and the last picture meanwhile", async () => {
  const { stream, connect, made } = desktop();
  stream.start();
  (await made(1)).open();
  FakeRfb.made[0]?.close(1006);
  await vi.waitFor(() => expect(stream.getState().status).toBe("reconnecting"));
  expect(stream.lastFrame).toContain("data:image/jpeg");
  stream.hurry();
  (await made(2)).open();
  expect(connect).toHaveBeenCalledTimes(2);
  expect(stream.getState().status).toBe("connected");
  expect(stream.lastFrame).toBeNull();
  stream.stop();
});

test("an ended session is not tried again and keeps the relay's reason", async () => {
  const { stream, connect, made } = desktop();
  stream.start();
  (await made(1)).open();
  FakeRfb.made[0]?.close(4410, "Its time was over.");
  await vi.waitFor(() => expect(stream.getState()).toMatchObject({ status: "stopped", stop: { message: "Its time was over." } }));
  expect(connect).toHaveBeenCalledTimes(1);
});

test("watching only asks for a ticket that cannot do more", async () => {
  const { stream, connect, made } = desktop();
  stream.start();
  (await made(1)).open();
  stream.start("view");
  const rfb = await made(2);
  rfb.open();
  expect(connect).toHaveBeenLastCalledWith("view");
  expect(FakeRfb.made[0]?.disconnect).toHaveBeenCalled();
  expect([rfb.viewOnly, rfb.resizeSession, rfb.scaleViewport]).toEqual([true, false, true]);
  stream.stop();
});

test("a stopped viewer opens nothing more", async () => {
  const { stream, connect } = desktop();
  stream.start();
  stream.stop();
  await vi.waitFor(() => expect(connect).toHaveBeenCalled());
  await Promise.resolve();
  expect(FakeRfb.made).toHaveLength(0);
});
