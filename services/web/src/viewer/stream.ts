/**
 * One desktop's stream: ticket, WebSocket, RFB, and again when it breaks.
 *
 * The WebSocket is ours rather than noVNC's, because noVNC tells only whether an end
 * was clean; the close code and reason say what to do next.
 */
import type RFB from "@novnc/novnc";
import type { Connection, ViewerRole } from "../api/types";
import { jittered } from "../lib/random";
import { CLOSE, decide, type Ending, type Stop } from "./reconnect";

export type StreamState =
  | { status: "idle" }
  | { status: "connecting" }
  | { status: "connected" }
  | { status: "reconnecting"; why: string; attempt: number }
  | { status: "stopped"; stop: Stop };

export interface Display {
  fit: "resize" | "scale";
  quality: "sharp" | "balanced" | "fast";
}

export type RfbClass = new (target: Element, socket: WebSocket, options: { shared: boolean }) => RFB;

export interface StreamPorts {
  connect: (role: ViewerRole) => Promise<Connection>;
  openSocket: (url: string, protocols: string[]) => WebSocket;
  /** Loads noVNC, before a socket is opened: it must be there when the first byte arrives. */
  loadRfb: () => Promise<RfbClass>;
  onClipboard: (text: string) => void;
}

/** noVNC's quality (how good JPEG is) and compression (how hard the server works), 0 to 9. */
export const QUALITY: Record<Display["quality"], { quality: number; compression: number }> = {
  sharp: { quality: 9, compression: 1 },
  balanced: { quality: 6, compression: 2 },
  fast: { quality: 2, compression: 7 },
};

const OPEN_TIMEOUT_MS = 25_000;

export class DesktopStream {
  #state: StreamState = { status: "idle" };
  #frame: string | null = null;
  #run = 0;
  #rfb: RFB | null = null;
  #hurry: (() => void) | null = null;
  #role: ViewerRole = "control";
  #display: Display;
  readonly #listeners = new Set<() => void>();
  readonly #target: Element;
  readonly #ports: StreamPorts;

  constructor(target: Element, ports: StreamPorts, display: Display) {
    this.#target = target;
    this.#ports = ports;
    this.#display = display;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly getState = (): StreamState => this.#state;

  /** The last picture of a broken stream, as a data address. */
  get lastFrame(): string | null {
    return this.#frame;
  }

  /** The live desktop, while connected. */
  get rfb(): RFB | null {
    return this.#state.status === "connected" ? this.#rfb : null;
  }

  start(role: ViewerRole = this.#role): void {
    this.#role = role;
    this.#end();
    void this.#keepConnected(this.#run);
  }

  /** Starts unless a connection is there or on its way. */
  ensureStarted(): void {
    if (this.#state.status === "idle" || this.#state.status === "stopped") this.start();
  }

  stop(): void {
    this.#end();
    this.#publish({ status: "idle" });
  }

  /** Skips the pause before the next try. */
  hurry(): void {
    this.#hurry?.();
  }

  show(display: Display): void {
    this.#display = display;
    if (this.#rfb) this.#apply(this.#rfb);
  }

  #end(): void {
    this.#run += 1;
    this.#hurry?.();
    const rfb = this.#rfb;
    this.#rfb = null;
    if (rfb) {
      this.#keepFrame(rfb);
      rfb.disconnect();
    }
  }

  async #keepConnected(run: number): Promise<void> {
    let failures = 0;
    let ticketRetried = false;
    this.#publish({ status: "connecting" });
    while (run === this.#run) {
      const ending = await this.#connectOnce(run, () => {
        failures = 0;
        ticketRetried = false;
      });
      if (run !== this.#run) return;
      failures += 1;
      const next = decide(ending, { failures, ticketRetried });
      if (next.kind === "stop") {
        this.#publish({ status: "stopped", stop: next });
        return;
      }
      ticketRetried ||= ending.kind === "closed" && ending.code === CLOSE.ticketRefused;
      this.#publish({ status: "reconnecting", why: next.why, attempt: failures });
      await this.#pause(jittered(next.delay));
    }
  }

  async #connectOnce(run: number, onConnected: () => void): Promise<Ending> {
    let connection: Connection;
    let Rfb: RfbClass;
    try {
      Rfb = await this.#ports.loadRfb();
      connection = await this.#ports.connect(this.#role);
    } catch (error) {
      return { kind: "refused", error };
    }
    if (run !== this.#run) return { kind: "closed", code: 1000, reason: "" };
    const socket = this.#ports.openSocket(connection.url, connection.protocols);
    socket.binaryType = "arraybuffer";
    return this.#watch(run, socket, Rfb, onConnected);
  }

  #watch(run: number, socket: WebSocket, Rfb: RfbClass, onConnected: () => void): Promise<Ending> {
    let closed: Ending | null = null;
    // Registered before noVNC takes the socket, so the code is known when noVNC reports the end.
    socket.addEventListener("close", ({ code, reason }) => {
      closed ??= { kind: "closed", code, reason };
    });
    const rfb = new Rfb(this.#target, socket, { shared: true });
    this.#rfb = rfb;
    return new Promise((resolve) => {
      let connected = false;
      const timeout = setTimeout(() => {
        closed ??= { kind: "closed", code: CLOSE.openTimeout, reason: "" };
        rfb.disconnect();
      }, OPEN_TIMEOUT_MS);
      rfb.addEventListener("connect", () => {
        clearTimeout(timeout);
        connected = true;
        if (run !== this.#run) return;
        onConnected();
        this.#apply(rfb);
        this.#frame = null;
        this.#publish({ status: "connected" });
        rfb.focus({ preventScroll: true });
      });
      rfb.addEventListener("clipboard", ({ detail }) => this.#ports.onClipboard(detail.text));
      rfb.addEventListener("credentialsrequired", () => {
        closed = { kind: "incompatible", reason: "The desktop asks for a password, which StreamSpace never sets. Tell an administrator." };
        rfb.disconnect();
      });
      rfb.addEventListener("securityfailure", ({ detail }) => {
        closed = { kind: "incompatible", reason: detail.reason ?? "The desktop refused the connection." };
      });
      rfb.addEventListener("disconnect", () => {
        clearTimeout(timeout);
        if (this.#rfb === rfb) {
          if (connected) this.#keepFrame(rfb);
          this.#rfb = null;
        }
        resolve(closed ?? { kind: "closed", code: 1006, reason: "" });
      });
    });
  }

  #apply(rfb: RFB): void {
    const { fit, quality } = this.#display;
    const resize = fit === "resize" && this.#role === "control";
    rfb.viewOnly = this.#role === "view";
    rfb.focusOnClick = true;
    rfb.background = "transparent";
    rfb.scaleViewport = !resize;
    rfb.resizeSession = resize;
    rfb.qualityLevel = QUALITY[quality].quality;
    rfb.compressionLevel = QUALITY[quality].compression;
  }

  #keepFrame(rfb: RFB): void {
    try {
      const frame = rfb.toDataURL("image/jpeg", 0.7);
      if (frame.length > 100) this.#frame = frame;
    } catch {
      // Nothing was drawn yet.
    }
  }

  #pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#hurry = null;
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      this.#hurry = done;
    });
  }

  #publish(state: StreamState): void {
    this.#state = state;
    for (const listener of this.#listeners) listener();
  }
}
