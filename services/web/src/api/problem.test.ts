import { describe, expect, test } from "vitest";
import { ApiError, explain, fieldErrors, problemFrom, unreachable } from "./problem";

describe("an error answer becomes a problem", () => {
  test("keeps the server's code, detail and request id", () => {
    const error = problemFrom(409, { code: "no-cluster", title: "No cluster can run this", detail: "No docker here.", requestId: "r1" });
    expect(error).toBeInstanceOf(ApiError);
    expect(error.problem).toMatchObject({ code: "no-cluster", detail: "No docker here.", requestId: "r1", status: 409 });
  });

  test("makes sense of a proxy's page that is no JSON", () => {
    const { problem } = problemFrom(502, null);
    expect(problem.code).toBe("service-unavailable");
    expect(problem.detail).toContain("Try again");
  });

  test("takes the wait from the body, else from the header", () => {
    expect(problemFrom(429, { retryAfter: 7 }, "30").problem.retryAfter).toBe(7);
    expect(problemFrom(429, {}, "30").problem.retryAfter).toBe(30);
    expect(problemFrom(429, {}, "soon").problem.retryAfter).toBeNull();
  });

  test("survives errors of the wrong shape", () => {
    expect(problemFrom(422, { errors: "no" }).problem.errors).toEqual([]);
  });
});

describe("explaining a problem", () => {
  test("says how long to wait after too many requests", () => {
    const error = problemFrom(429, { code: "too-many-requests", detail: "Slow down.", retryAfter: 120 });
    expect(explain(error).hint).toBe("Try again in 2 minutes.");
  });

  test("offers another try only where it may help", () => {
    expect(explain(unreachable()).canRetry).toBe(true);
    expect(explain(problemFrom(503, {})).canRetry).toBe(true);
    expect(explain(problemFrom(403, { code: "forbidden" })).canRetry).toBe(false);
  });

  test("shows the request id for the server's own mistakes only", () => {
    expect(explain(problemFrom(500, { code: "internal", requestId: "r9" })).requestId).toBe("r9");
    expect(explain(problemFrom(404, { code: "not-found", requestId: "r9" })).requestId).toBeUndefined();
  });
});

test("field problems find their field by pointer or dotted name", () => {
  const error = problemFrom(422, {
    errors: [
      { pointer: "/username", detail: "is taken" },
      { pointer: "body.email", detail: "is no address" },
    ],
  });
  expect(fieldErrors(error)).toEqual({ username: "is taken", email: "is no address" });
});
