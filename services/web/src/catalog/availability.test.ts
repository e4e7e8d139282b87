import { expect, test } from "vitest";
import type { RuntimeKind } from "../api/types";
import { availability, neededClusters, split } from "./availability";

const template = (runtimes: RuntimeKind[], unusable: string | null = null) => ({ runtimes, unusable });
const offered = (items: RuntimeKind[], live: RuntimeKind[] = items) => ({ items, live });

test("a template is ready where a live cluster has one of its runtimes", () => {
  expect(availability(template(["docker", "process"]), offered(["process"])).kind).toBe("ready");
});

test("a template without a cluster names the clusters it needs", () => {
  const found = availability(template(["docker", "kubernetes"]), offered(["process"]));
  expect(found).toEqual({ kind: "needs-cluster", note: "Needs a Kubernetes or Docker cluster" });
});

test("a template of an offline cluster waits for it", () => {
  expect(availability(template(["process"]), offered(["process"], [])).kind).toBe("waits");
});

test("what is unusable everywhere says why, whatever clusters there are", () => {
  expect(availability(template(["process"], "It names no image."), offered(["process"]))).toEqual({ kind: "unusable", note: "It names no image." });
});

test("as long as the runtimes are not known nothing is held back", () => {
  expect(availability(template(["docker"]), undefined).kind).toBe("ready");
});

test("the runtime for tests is never asked for", () => {
  expect(neededClusters(["process", "null", "kubernetes", "docker"])).toBe("Kubernetes, Docker or process-runtime");
});

test("splitting keeps the order within both groups", () => {
  const [a, b, c] = [template(["docker"]), template(["process"]), template(["process"])];
  expect(split([a, b, c], offered(["process"]))).toEqual({ here: [b, c], elsewhere: [a] });
});
