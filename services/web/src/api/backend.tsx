/** Hands the backend (who is signed in, typed calls, event streams) to the components. */
import { createContext, type ReactNode, use, useSyncExternalStore } from "react";
import { type AuthState, AuthSession, type AuthOptions } from "./auth-session";
import { type ApiClient, authorizedFetch, createApi, type Fetch } from "./client";
import type { User } from "./types";

export interface Backend {
  auth: AuthSession;
  api: ApiClient;
  send: Fetch;
}

export function createBackend(options: AuthOptions): Backend {
  const auth = new AuthSession(options);
  const send = authorizedFetch(auth, options.fetch);
  return { auth, send, api: createApi(send) };
}

const BackendContext = createContext<Backend | null>(null);

export function BackendProvider({ backend, children }: { backend: Backend; children: ReactNode }) {
  return <BackendContext value={backend}>{children}</BackendContext>;
}

export function useBackend(): Backend {
  const backend = use(BackendContext);
  if (!backend) throw new Error("useBackend needs a BackendProvider");
  return backend;
}

export function useAuth(): AuthState {
  const { auth } = useBackend();
  return useSyncExternalStore(auth.subscribe, auth.getState);
}

/** The signed-in user; only for pages behind the sign-in. */
export function useUser(): User {
  const { user } = useAuth();
  if (!user) throw new Error("useUser is for signed-in pages");
  return user;
}

export function isOperator(user: User): boolean {
  return user.role === "operator" || user.role === "admin";
}
