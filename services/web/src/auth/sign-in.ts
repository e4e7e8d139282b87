/** What signing in says, and where it leads. Pure. */
import { ApiError, secondsInWords, UNREACHABLE } from "../api/problem";

/** What went wrong with a sign-in, and what to do. */
export function signInMessage(error: unknown): string {
  if (!(error instanceof ApiError)) return "Something went wrong. Try again.";
  switch (error.code) {
    case "invalid-credentials":
      return "The user name or password is wrong. Check both and try again.";
    case "account-disabled":
      return "This account is disabled. Ask an administrator to enable it.";
    case "too-many-requests": {
      const { retryAfter } = error.problem;
      return `Too many attempts. Wait ${retryAfter ? secondsInWords(retryAfter) : "a minute"} and try again.`;
    }
    case UNREACHABLE:
      return "StreamSpace cannot be reached. Check your network connection and try again.";
    default:
      return error.problem.detail;
  }
}

/** Only a path of this app: an address from elsewhere must not become a redirect. */
export function returnPath(state: unknown): string {
  const from = typeof state === "object" && state !== null && "from" in state ? state.from : null;
  return typeof from === "string" && /^\/(?![/\\])/.test(from) && !from.startsWith("/login") ? from : "/";
}
