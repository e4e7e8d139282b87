import { screen } from "@testing-library/react";
import { userEvent } from "@testing-library/user-event";
import { expect, test } from "vitest";
import type { RuntimeKind, Template } from "../api/types";
import { FakeApi, json, problem, signedIn } from "../test/fake-api";
import { renderApp } from "../test/render";

const template = (name: string, runtimes: RuntimeKind[]): Template => ({
  id: `starter_${name}`,
  catalogId: "starter",
  name,
  displayName: name,
  description: "",
  categories: [],
  tags: [],
  icon: null,
  protocol: "vnc",
  runtimes,
  defaultResources: { cpu: "500m", memory: "1Gi" },
  capabilities: [],
  digest: "0".repeat(64),
  path: `${name}.yaml`,
  commit: null,
  unusable: null,
  updatedAt: "2026-01-01T00:00:00Z",
});

const items = [template("gimp", ["docker", "kubernetes"]), template("desktop", ["process"])];

function control() {
  return new FakeApi()
    .on("POST /auth/refresh", () => signedIn())
    .on("GET /sessions", () => json({ items: [], nextCursor: null }))
    .on("GET /templates", () => json({ items, nextCursor: null, total: items.length, categories: {} }));
}

const order = () => screen.getAllByRole("article").map((card) => card.getAttribute("aria-label"));

test("what can be launched comes first, the rest says what it needs and has no launch", async () => {
  renderApp(control().on("GET /runtimes", () => json({ items: ["process"], live: ["process"] })), "/");
  await screen.findByTestId("launch-starter_desktop");
  expect(order()).toEqual(["desktop", "gimp"]);
  expect(screen.getByTestId("template-card-starter_gimp").textContent).toContain("Needs a Kubernetes or Docker cluster");
  expect(screen.queryByTestId("launch-starter_gimp")).toBeNull();
  await userEvent.click(screen.getByTestId("details-starter_gimp"));
  await screen.findByTestId("launch-hindrance");
  expect(screen.queryByTestId("launch-confirm")).toBeNull();
});

test("a template whose cluster is offline can be launched and says that it will wait", async () => {
  renderApp(control().on("GET /runtimes", () => json({ items: ["process"], live: [] })), "/");
  await screen.findByTestId("launch-starter_desktop");
  expect(screen.getByTestId("template-card-starter_desktop").textContent).toContain("Its cluster is offline");
});

test("without knowing the runtimes everything can be tried", async () => {
  renderApp(control().on("GET /runtimes", () => problem(403, "forbidden", "No.")), "/");
  await screen.findByTestId("launch-starter_gimp");
  expect(order()).toEqual(["gimp", "desktop"]);
});
