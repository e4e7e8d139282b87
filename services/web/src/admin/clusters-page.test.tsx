import { screen, waitFor, within } from "@testing-library/react";
import { userEvent } from "@testing-library/user-event";
import { expect, test } from "vitest";
import type { Cluster } from "../api/types";
import { ada, FakeApi, json } from "../test/fake-api";
import { renderApp } from "../test/render";
import { agents } from "./presence";

const base: Cluster = {
  id: "local",
  name: "Local",
  presence: "online",
  runningSessions: 2,
  reservedSessions: 2,
  waitingCommands: 0,
  agents: 1,
  instances: [],
  createdAt: "2026-01-01T00:00:00Z",
  versionNumber: 1,
};

function control(cluster: Cluster) {
  let shown = cluster;
  const user = { ...ada, role: "operator" };
  return new FakeApi()
    .on("POST /auth/refresh", () =>
      json({ accessToken: "t", tokenType: "Bearer", expiresIn: 900, refreshToken: null, refreshExpiresIn: 86_400, user }),
    )
    .on("GET /sessions", () => json({ items: [], nextCursor: null }))
    .on("GET /clusters", () => json({ items: [shown] }))
    .on("POST /clusters/local/drain", () => {
      shown = { ...shown, presence: "draining", drainedAt: "2026-01-02T00:00:00Z", drainedBy: "ada" };
      return json({ cluster: shown, hibernating: 2 }, 202);
    })
    .on("POST /clusters/local/undrain", () => {
      shown = cluster;
      return json(shown);
    });
}

test("an operator drains a cluster, with its sessions only when told so, and takes it back", async () => {
  const api = control(base);
  const browser = userEvent.setup();
  renderApp(api, "/admin/clusters");
  const card = within(await screen.findByTestId("cluster-local"));
  await browser.click(card.getByTestId("cluster-drain"));
  await browser.click(await screen.findByLabelText("Hibernate the sessions that run there"));
  await browser.click(screen.getByTestId("cluster-drain-confirm"));
  await waitFor(() => expect(card.getByTestId("cluster-presence").textContent).toBe("Draining"));
  expect(api.callsTo("POST /clusters/local/drain")[0]?.body).toEqual({ hibernate: true });
  expect(card.getByTestId("cluster-drained").textContent).toContain("says ada");

  await browser.click(card.getByTestId("cluster-undrain"));
  await waitFor(() => expect(card.getByTestId("cluster-presence").textContent).toBe("Online"));
  expect(card.queryByTestId("cluster-drained")).toBeNull();
});

test("sessions stay unless the operator says otherwise", async () => {
  const api = control(base);
  const browser = userEvent.setup();
  renderApp(api, "/admin/clusters");
  await browser.click(await screen.findByTestId("cluster-drain"));
  await browser.click(await screen.findByTestId("cluster-drain-confirm"));
  await waitFor(() => expect(api.callsTo("POST /clusters/local/drain")).toHaveLength(1));
  expect(api.callsTo("POST /clusters/local/drain")[0]?.body).toEqual({ hibernate: false });
});

test("an agent older than the control plane is named", () => {
  const one = { instance: "a", version: "0.1.0", contractVersion: 1, lastSeenAt: "2026-01-01T00:00:00Z", behind: true, draining: false, busyCommands: 0 };
  const two = { ...one, instance: "b", version: "0.2.0", behind: false };
  expect(agents({ ...base, agents: 2, instances: [two, one] })).toBe("2 agents, version 0.1.0 (older than the control plane), 0.2.0");
  expect(agents({ ...base, agents: 0 })).toBe("none");
});

const admins = () =>
  json({ accessToken: "t", tokenType: "Bearer", expiresIn: 900, refreshToken: null, refreshExpiresIn: 86_400, user: { ...ada, role: "admin" } });

function administered() {
  return control(base).on("POST /auth/refresh", admins);
}

test("revoking a cluster's access says what it means and asks first", async () => {
  const api = administered().on("POST /clusters/local/revoke", () => new Response(null, { status: 204 }));
  const browser = userEvent.setup();
  renderApp(api, "/admin/clusters");
  await browser.click(await screen.findByTestId("cluster-revoke"));
  const dialog = within(await screen.findByRole("dialog", { name: "Revoke the access of Local?" }));
  expect(api.callsTo("POST /clusters/local/revoke")).toHaveLength(0);
  await browser.click(dialog.getByTestId("cluster-revoke-confirm"));
  await waitFor(() => expect(screen.queryByRole("dialog")).toBeNull());
  expect(api.callsTo("POST /clusters/local/revoke")).toHaveLength(1);
});

test("a new enrolment replaces the old one and is shown once", async () => {
  const api = administered().on("POST /clusters", () =>
    json({ clusterId: "local", natsUrls: ["nats://localhost:4222"], credentials: "a secret", tunnelUrl: "ws://localhost:8081" }, 201),
  );
  const browser = userEvent.setup();
  renderApp(api, "/admin/clusters");
  await browser.click(await screen.findByTestId("cluster-renew"));
  await browser.click(await screen.findByTestId("cluster-renew-confirm"));
  expect(await screen.findByRole("dialog", { name: "Start the agent" })).toBeTruthy();
  expect(api.callsTo("POST /clusters")[0]?.body).toEqual({ id: "local", replace: true });
});

test.each([
  ["nats://localhost:4222", "ws://hub.example.org", true],
  ["nats://hub.example.org:4222", "ws://127.0.0.1:8081", true],
  ["wss://hub.example.org:8443/bus", "wss://hub.example.org:8443", false],
])("an enrolment to %s and %s leads to this machine only: %s", async (nats, tunnelUrl, told) => {
  const api = administered().on("POST /clusters", () => json({ clusterId: "local", natsUrls: [nats], credentials: "a secret", tunnelUrl }, 201));
  const browser = userEvent.setup();
  renderApp(api, "/admin/clusters");
  await browser.click(await screen.findByTestId("cluster-renew"));
  await browser.click(await screen.findByTestId("cluster-renew-confirm"));
  await screen.findByTestId("enrolment-file");
  expect(screen.queryByTestId("enrolment-local") !== null).toBe(told);
});

test("who may not enrol clusters is not offered to", async () => {
  renderApp(control(base), "/admin/clusters");
  await screen.findByTestId("cluster-drain");
  expect(screen.queryByTestId("cluster-revoke")).toBeNull();
  expect(screen.queryByTestId("cluster-renew")).toBeNull();
});

const gone: Cluster = { ...base, presence: "offline", agents: 0, revokedAt: "2026-01-02T00:00:00Z", reservedSessions: 2, waitingCommands: 2 };

test("a revoked cluster says so, and is removed instead of revoked again", async () => {
  renderApp(
    control(gone).on("POST /auth/refresh", admins),
    "/admin/clusters",
  );
  const card = within(await screen.findByTestId("cluster-local"));
  expect(card.getByTestId("cluster-access").textContent).toBe("Access revoked");
  expect(card.getByTestId("cluster-presence").textContent).toBe("Offline");
  expect(card.getByTestId("cluster-revoked").textContent).toContain("A new enrolment lets it in again.");
  expect(card.getByText("2 for a new enrolment")).toBeTruthy();
  expect(card.queryByTestId("cluster-revoke")).toBeNull();
  expect(card.queryByTestId("cluster-drain")).toBeNull();
  expect(card.getByTestId("cluster-renew")).toBeTruthy();
});

test("removing a cluster ends its sessions only when told so", async () => {
  let items: Cluster[] = [gone];
  const api = control(gone)
    .on("POST /auth/refresh", admins)
    .on("GET /clusters", () => json({ items }))
    .on("DELETE /clusters/local", () => {
      items = [];
      return json({ clusterId: "local", endedSessions: 2 });
    });
  const browser = userEvent.setup();
  renderApp(api, "/admin/clusters");
  await browser.click(await screen.findByTestId("cluster-remove"));
  const dialog = within(await screen.findByRole("dialog", { name: "Remove Local for good?" }));
  const confirm: HTMLButtonElement = dialog.getByTestId("cluster-remove-confirm");
  expect(confirm.disabled).toBe(true);
  await browser.click(dialog.getByLabelText("End its 2 sessions"));
  expect(confirm.disabled).toBe(false);
  await browser.click(confirm);
  await waitFor(() => expect(screen.queryByTestId("cluster-local")).toBeNull());
  expect(api.callsTo("DELETE /clusters/local")[0]?.query).toContain("endSessions=true");
  expect(await screen.findByText("Local is removed. 2 sessions ended.")).toBeTruthy();
});

test("a removal that is refused says why and leaves the cluster", async () => {
  const api = control({ ...gone, reservedSessions: 0 })
    .on("POST /auth/refresh", admins)
    .on("DELETE /clusters/local", () => json({ title: "Not possible in this state", status: 409, code: "wrong-state", detail: "Its agents are let in." }, 409));
  const browser = userEvent.setup();
  renderApp(api, "/admin/clusters");
  await browser.click(await screen.findByTestId("cluster-remove"));
  await browser.click(await screen.findByTestId("cluster-remove-confirm"));
  expect(await screen.findByText("Its agents are let in.")).toBeTruthy();
  expect(screen.getByTestId("cluster-local")).toBeTruthy();
});
