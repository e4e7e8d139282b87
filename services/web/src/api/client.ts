/** The typed client: every call carries the access token and fails with an `ApiError`. */
import createClient, { type Client } from "openapi-fetch";
import type { AuthSession } from "./auth-session";
import { type ApiError, problemFrom, unreachable } from "./problem";
import type { paths } from "./schema";

export type ApiClient = Client<paths>;
export type Fetch = (request: Request) => Promise<Response>;

/** Adds the access token; after a 401 gets a fresh one and tries once more. */
export function authorizedFetch(auth: AuthSession, send: typeof globalThis.fetch): Fetch {
  const attempt = async (request: Request, token: string): Promise<Response> => {
    request.headers.set("Authorization", `Bearer ${token}`);
    try {
      return await send(request);
    } catch (error) {
      if (request.signal.aborted) throw error;
      throw unreachable();
    }
  };
  return async (request) => {
    const again = request.clone();
    const token = await auth.token();
    const response = await attempt(request, token);
    if (response.status !== 401) return response;
    return attempt(again, await auth.replace(token));
  };
}

export function createApi(send: Fetch): ApiClient {
  return createClient<paths>({ baseUrl: globalThis.location.origin, fetch: send });
}

interface Result<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The answer's data, or its problem thrown. */
export async function unwrap<T>(result: Promise<Result<T>>): Promise<T> {
  const { data, error, response } = await result;
  if (!response.ok) throw asError(response, error);
  return data as T;
}

function asError(response: Response, body: unknown): ApiError {
  return problemFrom(response.status, body, response.headers.get("Retry-After"));
}
