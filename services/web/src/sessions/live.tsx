/**
 * Live sessions: the server's event stream, written into the query cache.
 *
 * One `/events` stream serves the whole tab. It is let go while the tab is hidden for
 * long, because browsers allow only six connections to a server over HTTP/1.1, and
 * resumes without a gap.
 */
import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, use, useEffect, useRef, useState } from "react";
import { useBackend } from "../api/backend";
import { type ApiError } from "../api/problem";
import { followEvents, type ServerEvent, type StreamStatus } from "../api/sse";
import type { PhaseTiming, Session, SessionPage } from "../api/types";
import { newer, withPhase } from "./state";

interface StateEvent {
  session: Session;
}

interface PhaseEvent {
  sessionId: string;
  generation: number;
  timing: PhaseTiming;
}

/**
 * Has everything under these keys read anew.
 *
 * What is on its way already is not waited for: it may have been asked for before the change,
 * and a first answer, which nothing can be compared with, would be taken for fresh.
 */
export async function readAnew(client: QueryClient, ...keys: string[]): Promise<void> {
  await Promise.all(
    keys.map(async (key) => {
      await client.cancelQueries({ queryKey: [key] });
      await client.invalidateQueries({ queryKey: [key] });
    }),
  );
}

export const sessionKey = (id: string) => ["session", id] as const;

/** Takes an event into the cache, so that every list and page shows it. */
export function applyEvent(client: QueryClient, event: ServerEvent): void {
  switch (event.name) {
    case "snapshot": {
      const data = event.data as Session | SessionPage;
      const sessions = "items" in data ? data.items : [data];
      for (const session of sessions) remember(client, session);
      if ("items" in data) void readAnew(client, "sessions");
      break;
    }
    case "created":
      remember(client, (event.data as StateEvent).session);
      void readAnew(client, "sessions");
      break;
    case "state": {
      const { session } = event.data as StateEvent;
      remember(client, session);
      void client.invalidateQueries({ queryKey: ["commands", session.id] });
      // It moves from the list of the living to that of the failed.
      if (session.state === "failed") void readAnew(client, "sessions");
      break;
    }
    case "phase": {
      const { sessionId, generation, timing } = event.data as PhaseEvent;
      client.setQueryData<Session>(sessionKey(sessionId), (known) => known && withPhase(known, timing, generation));
      break;
    }
    case "catalog":
      void readAnew(client, "catalogs", "report", "templates");
      break;
    case "cluster":
      void readAnew(client, "clusters", "runtimes");
      break;
  }
}

/** Puts a session where it is shown, unless something newer is there. */
export function remember(client: QueryClient, told: Session): void {
  client.setQueryData<Session>(sessionKey(told.id), (known) => newer(known, told));
  client.setQueriesData<SessionPage>({ queryKey: ["sessions"] }, (page) => {
    if (!page?.items.some(({ id }) => id === told.id)) return page;
    return { ...page, items: page.items.map((known) => (known.id === told.id ? newer(known, told) : known)) };
  });
}

export interface Live {
  /** False once the stream has been away for longer than a blink. */
  connected: boolean;
}

const LiveContext = createContext<Live>({ connected: true });

export const useLive = (): Live => use(LiveContext);

const HIDDEN_MS = 60_000;
const BLINK_MS = 3_000;

export function LiveProvider({ children }: { children: ReactNode }) {
  const { send } = useBackend();
  const client = useQueryClient();
  const visible = useVisible();
  const [connected, setConnected] = useState(true);

  useEffect(() => {
    if (!visible) return;
    const controller = new AbortController();
    let away: ReturnType<typeof setTimeout> | undefined;
    let wasAway = false;
    const onStatus = (status: StreamStatus) => {
      if (status === "open") {
        clearTimeout(away);
        away = undefined;
        setConnected(true);
        if (wasAway) void client.invalidateQueries();
        wasAway = false;
      } else {
        away ??= setTimeout(() => {
          wasAway = true;
          setConnected(false);
        }, BLINK_MS);
      }
    };
    void followEvents({
      url: "/api/v1/events",
      send,
      signal: controller.signal,
      onStatus,
      onEvent: (event) => applyEvent(client, event),
    });
    return () => {
      clearTimeout(away);
      controller.abort();
    };
  }, [client, send, visible]);

  return <LiveContext value={{ connected }}>{children}</LiveContext>;
}

/** Follows one session, phases included, for as long as the component is there. */
export function useSessionEvents(id: string): ApiError | null {
  const { send } = useBackend();
  const client = useQueryClient();
  const [refused, setRefused] = useState<{ id: string; error: ApiError } | null>(null);
  useEffect(() => {
    const controller = new AbortController();
    void followEvents({
      url: `/api/v1/sessions/${encodeURIComponent(id)}/events`,
      send,
      signal: controller.signal,
      onEvent: (event) => applyEvent(client, event),
      onRefused: (error) => setRefused({ id, error }),
    });
    return () => controller.abort();
  }, [client, send, id]);
  return refused?.id === id ? refused.error : null;
}

/** Turns false only after the tab was hidden for a while. */
function useVisible(): boolean {
  const [visible, setVisible] = useState(true);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => {
    const changed = () => {
      clearTimeout(timer.current);
      if (document.visibilityState === "visible") setVisible(true);
      else timer.current = setTimeout(() => setVisible(false), HIDDEN_MS);
    };
    document.addEventListener("visibilitychange", changed);
    return () => {
      clearTimeout(timer.current);
      document.removeEventListener("visibilitychange", changed);
    };
  }, []);
  return visible;
}
