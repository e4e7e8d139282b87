/** Errors of the API as one type, and what to tell a person about them. */

export interface FieldProblem {
  pointer: string;
  detail: string;
}

/** The body of an error answer (RFC 9457), or what stands for it when there was none. */
export interface Problem {
  status: number;
  code: string;
  title: string;
  detail: string;
  requestId?: string | null;
  errors?: FieldProblem[];
  retryAfter?: number | null;
}

export class ApiError extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail);
    this.name = "ApiError";
    this.problem = problem;
  }

  get code(): string {
    return this.problem.code;
  }

  get status(): number {
    return this.problem.status;
  }
}

/** The control plane did not answer at all. */
export const UNREACHABLE = "unreachable";

export function unreachable(): ApiError {
  return new ApiError({
    status: 0,
    code: UNREACHABLE,
    title: "StreamSpace cannot be reached",
    detail: "Check your network connection. This page tries again by itself.",
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function fieldProblems(value: unknown): FieldProblem[] {
  if (!Array.isArray(value)) return [];
  return value.filter(isRecord).map((item) => ({
    pointer: text(item.pointer) ?? "",
    detail: text(item.detail) ?? "not valid",
  }));
}

/** Reads any error body; a proxy's HTML page becomes a problem too. */
export function problemFrom(status: number, body: unknown, retryAfterHeader?: string | null): ApiError {
  const source = isRecord(body) ? body : {};
  const headerSeconds = Number(retryAfterHeader ?? "");
  const retryAfter =
    typeof source.retryAfter === "number"
      ? source.retryAfter
      : Number.isFinite(headerSeconds) && headerSeconds > 0
        ? headerSeconds
        : null;
  return new ApiError({
    status,
    code: text(source.code) ?? (status >= 500 ? "service-unavailable" : "invalid-request"),
    title: text(source.title) ?? (status >= 500 ? "Not available right now" : "The request failed"),
    detail:
      text(source.detail) ??
      (status >= 500
        ? "The server could not answer. Try again in a moment."
        : `The server answered with status ${status}.`),
    requestId: text(source.requestId) ?? null,
    errors: fieldProblems(source.errors),
    retryAfter,
  });
}

export interface Explanation {
  title: string;
  detail: string;
  /** What the person can do, where the detail alone does not say it. */
  hint?: string;
  canRetry: boolean;
  requestId?: string;
}

const HINTS: Record<string, string> = {
  "quota-exceeded": "Delete or hibernate a session you no longer need, or ask an administrator for more.",
  "no-cluster": "Ask an administrator to connect a cluster that can run this template.",
  "precondition-failed": "Somebody else changed it meanwhile. Reload and make your change again.",
  forbidden: "Ask an administrator if you need this.",
};

const RETRYABLE = new Set([UNREACHABLE, "service-unavailable", "internal", "session-unreachable", "catalog-unreachable"]);

export function explain(error: unknown): Explanation {
  if (!(error instanceof ApiError)) {
    return {
      title: "Something went wrong",
      detail: error instanceof Error ? error.message : "An unexpected error happened.",
      canRetry: true,
    };
  }
  const { code, title, detail, retryAfter, requestId } = error.problem;
  const wait =
    code === "too-many-requests" && retryAfter ? `Try again in ${secondsInWords(retryAfter)}.` : undefined;
  const hint = wait ?? HINTS[code];
  return {
    title,
    detail,
    ...(hint !== undefined && { hint }),
    canRetry: RETRYABLE.has(code) || error.status >= 500,
    ...(requestId && error.status >= 500 && { requestId }),
  };
}

export function secondsInWords(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} seconds`;
  return `${Math.ceil(seconds / 60)} minutes`;
}

/** Field name -> message, for a form; `/displayName` and `body.displayName` both name `displayName`. */
export function fieldErrors(error: unknown): Record<string, string> {
  if (!(error instanceof ApiError)) return {};
  const found: Record<string, string> = {};
  for (const { pointer, detail } of error.problem.errors ?? []) {
    const name = pointer.split(/[/.]/).filter(Boolean).at(-1);
    if (name) found[name] ??= detail;
  }
  return found;
}
