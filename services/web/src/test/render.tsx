/** Shows a part of the app over a fake API, signed in. */
import { MantineProvider } from "@mantine/core";
import { ModalsProvider } from "@mantine/modals";
import { Notifications } from "@mantine/notifications";
import { QueryClientProvider } from "@tanstack/react-query";
import { render } from "@testing-library/react";
import { createMemoryRouter, type InitialEntry, type RouteObject, RouterProvider } from "react-router";
import { BackendProvider, createBackend } from "../api/backend";
import { createQueryClient, routes as appRoutes } from "../app";
import { theme } from "../theme";
import { type FakeApi, loneTab } from "./fake-api";

export function renderApp(fake: FakeApi, at: InitialEntry, routes: RouteObject[] = appRoutes) {
  const backend = createBackend({ fetch: fake.fetch, tabs: loneTab });
  const router = createMemoryRouter(routes, { initialEntries: [at] });
  void backend.auth.start();
  const view = render(
    <MantineProvider theme={theme} env="test">
      <BackendProvider backend={backend}>
        <QueryClientProvider client={createQueryClient()}>
          <ModalsProvider>
            <RouterProvider router={router} />
          </ModalsProvider>
        </QueryClientProvider>
      </BackendProvider>
      <Notifications />
    </MantineProvider>,
  );
  return { ...view, router, backend };
}
