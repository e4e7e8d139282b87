/** Providers and routes. */
import { localStorageColorSchemeManager, MantineProvider } from "@mantine/core";
import { ModalsProvider } from "@mantine/modals";
import { Notifications } from "@mantine/notifications";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { lazy, Suspense, useEffect, useState } from "react";
import { createBrowserRouter, Navigate, type RouteObject, RouterProvider } from "react-router";
import { type Backend, BackendProvider } from "./api/backend";
import { ApiError } from "./api/problem";
import { RequireRole, RequireSignIn } from "./auth/guard";
import { LoginPage } from "./auth/login-page";
import { CatalogPage } from "./catalog/catalog-page";
import { ProgressPage } from "./sessions/progress-page";
import { SessionsPage } from "./sessions/sessions-page";
import { CrashPage } from "./shell/crash-page";
import { Layout } from "./shell/layout";
import { PageLoader } from "./shell/page-loader";
import { NotFoundPage } from "./shell/states";
import { theme } from "./theme";

// The viewer brings noVNC, and administration is for few: both load when first needed.
const ViewerPage = lazy(() => import("./viewer/viewer-page"));
const AdminLayout = lazy(() => import("./admin/admin-layout"));
const UsersPage = lazy(() => import("./admin/users-page"));
const ClustersPage = lazy(() => import("./admin/clusters-page"));
const CatalogsPage = lazy(() => import("./admin/catalogs-page"));
const OperationsPage = lazy(() => import("./admin/operations-page"));
const EverySessionPage = lazy(() => import("./admin/sessions-page"));

export const routes: RouteObject[] = [
  {
    errorElement: <CrashPage />,
    children: [
      { path: "/login", element: <LoginPage /> },
      {
        element: <RequireSignIn />,
        children: [
          {
            path: "/sessions/:id/view",
            element: (
              <Suspense fallback={<PageLoader />}>
                <ViewerPage />
              </Suspense>
            ),
          },
          {
            element: <Layout />,
            children: [
              { path: "/", element: <CatalogPage /> },
              { path: "/sessions", element: <SessionsPage /> },
              { path: "/sessions/:id", element: <ProgressPage /> },
              {
                path: "/admin",
                element: <RequireRole role="operator" />,
                children: [
                  {
                    element: <AdminLayout />,
                    children: [
                      { index: true, element: <Navigate to="/admin/clusters" replace /> },
                      { path: "clusters", element: <ClustersPage /> },
                      { path: "catalogs", element: <CatalogsPage /> },
                      { path: "sessions", element: <EverySessionPage /> },
                      { path: "operations", element: <OperationsPage /> },
                      {
                        element: <RequireRole role="admin" />,
                        children: [{ path: "users", element: <UsersPage /> }],
                      },
                    ],
                  },
                ],
              },
              { path: "*", element: <NotFoundPage /> },
            ],
          },
        ],
      },
    ],
  },
];

export function createQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        staleTime: 15_000,
        // The server's "no" stays a no; only its silence is worth another try.
        retry: (failures, error) => failures < 2 && !(error instanceof ApiError && error.status >= 400 && error.status < 500),
        retryDelay: (failures) => 500 * 2 ** failures,
      },
    },
  });
}

const schemes = localStorageColorSchemeManager({ key: "streamspace-color-scheme" });

export function App({ backend }: { backend: Backend }) {
  const [router] = useState(() => createBrowserRouter(routes));
  const [client] = useState(createQueryClient);
  // Nothing of one user may be shown to the next.
  useEffect(() => {
    let before = backend.auth.getState().user?.id;
    return backend.auth.subscribe(() => {
      const now = backend.auth.getState().user?.id;
      if (before !== undefined && now !== before) client.clear();
      before = now;
    });
  }, [backend, client]);
  return (
    <MantineProvider theme={theme} defaultColorScheme="auto" colorSchemeManager={schemes}>
      <BackendProvider backend={backend}>
        <QueryClientProvider client={client}>
          <ModalsProvider>
            <RouterProvider router={router} />
          </ModalsProvider>
        </QueryClientProvider>
      </BackendProvider>
      <Notifications position="bottom-right" />
    </MantineProvider>
  );
}
