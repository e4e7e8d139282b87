/** Reading and changing sessions. */
import {
  keepPreviousData, type QueryClient, useMutation, type UseMutationOptions, type UseMutationResult, useQuery, useQueryClient,
} from "@tanstack/react-query";
import { useRef } from "react";
import { useBackend } from "../api/backend";
import { unwrap } from "../api/client";
import type { Accepted, HistoryEntry, NewSession, Session, SessionPage, SessionState, ViewerRole } from "../api/types";
import { notifyError } from "../shell/notify";
import { readAnew, remember, sessionKey, useLive } from "./live";
import { newer } from "./state";

/** While the event stream is away, lists are read anew now and then instead. */
const POLL_MS = 10_000;

export interface SessionFilter {
  includeFinal: boolean;
  everyone: boolean;
  /** Only these, ended ones too. */
  state?: SessionState[];
}

/** An answer may be older than an event that arrived while it was on its way. */
function current(client: QueryClient, told: Session): Session {
  return newer(client.getQueryData<Session>(sessionKey(told.id)), told);
}

export function useSessions(filter: SessionFilter) {
  const { api } = useBackend();
  const client = useQueryClient();
  const { connected } = useLive();
  return useQuery({
    queryKey: ["sessions", filter],
    queryFn: async ({ signal }): Promise<SessionPage> => {
      const page = await unwrap(api.GET("/api/v1/sessions", { params: { query: { ...filter, limit: 200 } }, signal }));
      return { ...page, items: page.items.map((told) => current(client, told)) };
    },
    refetchInterval: connected ? false : POLL_MS,
  });
}

export function useSession(id: string) {
  const { api } = useBackend();
  const client = useQueryClient();
  const { connected } = useLive();
  return useQuery({
    queryKey: sessionKey(id),
    queryFn: async ({ signal }) =>
      current(client, await unwrap(api.GET("/api/v1/sessions/{session_id}", { params: { path: { session_id: id } }, signal }))),
    refetchInterval: connected ? false : POLL_MS,
  });
}

/** All that happened to a session, oldest first; a session's version tells when there is more. */
export function useHistory(id: string, version: number | undefined) {
  const { api } = useBackend();
  return useQuery({
    queryKey: ["history", id, version],
    queryFn: async ({ signal }): Promise<HistoryEntry[]> => {
      const entries: HistoryEntry[] = [];
      let cursor: string | null | undefined;
      do {
        const query = { limit: 200, ...(cursor && { cursor }) };
        const page = await unwrap(
          api.GET("/api/v1/sessions/{session_id}/history", { params: { path: { session_id: id }, query }, signal }),
        );
        entries.push(...page.items);
        cursor = page.nextCursor;
      } while (cursor && entries.length < 1000);
      return entries;
    },
    enabled: version !== undefined,
    placeholderData: keepPreviousData,
  });
}

export function useLaunch() {
  const { api } = useBackend();
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ body, key }: { body: NewSession; key: string }): Promise<Accepted> =>
      unwrap(api.POST("/api/v1/sessions", { body, params: { header: { "Idempotency-Key": key } } })),
    onSuccess: ({ session }) => {
      remember(client, session);
      void readAnew(client, "sessions");
    },
  });
}

/** A mutation that a second click, before the first is answered, does not begin again. */
function useOnce<Data, Variables>(options: UseMutationOptions<Data, Error, Variables>): UseMutationResult<Data, Error, Variables> {
  const busy = useRef(false);
  const mutation = useMutation({
    ...options,
    onSettled: () => {
      busy.current = false;
    },
  });
  const mutate: typeof mutation.mutate = (...asked) => {
    // `isPending` is known only after the next render, which a double click does not wait for.
    if (busy.current) return;
    busy.current = true;
    mutation.mutate(...asked);
  };
  return { ...mutation, mutate };
}

/** Hibernate, wake and delete, as one mutation each; errors are shown as a notification. */
export function useSessionActions(id: string) {
  const { api } = useBackend();
  const client = useQueryClient();
  const params = { path: { session_id: id } };
  const options = {
    onSuccess: ({ session }: Accepted) => {
      remember(client, session);
      void readAnew(client, "sessions");
    },
    onError: (error: unknown) => {
      notifyError(error);
      void client.invalidateQueries({ queryKey: sessionKey(id) });
    },
  };
  const hibernate = useOnce({
    ...options,
    mutationFn: () => unwrap(api.POST("/api/v1/sessions/{session_id}/hibernate", { params })),
  });
  const wake = useOnce({
    ...options,
    mutationFn: () => unwrap(api.POST("/api/v1/sessions/{session_id}/wake", { params })),
  });
  const remove = useOnce({
    ...options,
    mutationFn: (deleteHome: boolean) =>
      unwrap(api.DELETE("/api/v1/sessions/{session_id}", { params: { ...params, query: { deleteHome } } })),
  });
  return { hibernate, wake, remove };
}

/** Asks for a ticket; each is good once and for seconds. */
export function useConnect() {
  const { api } = useBackend();
  return (id: string, role: ViewerRole) =>
    unwrap(
      api.POST("/api/v1/sessions/{session_id}/connect", { params: { path: { session_id: id } }, body: { role } }),
    );
}
