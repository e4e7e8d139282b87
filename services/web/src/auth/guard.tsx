/** Lets only signed-in people through; others sign in first and come back to where they were. */
import { Button, Center, Loader, Stack, Text, Title } from "@mantine/core";
import { IconPlugConnectedX } from "@tabler/icons-react";
import { Navigate, Outlet, useLocation } from "react-router";
import { isOperator, useAuth, useBackend, useUser } from "../api/backend";
import type { Role } from "../api/types";
import { LiveProvider } from "../sessions/live";
import { PageLoader } from "../shell/page-loader";
import { EmptyState } from "../shell/states";

export function RequireSignIn() {
  const { status, ended } = useAuth();
  const location = useLocation();
  if (status === "starting") return <PageLoader />;
  if (status === "unreachable") return <Unreachable />;
  if (status === "signed-out") {
    // Who signed out on purpose leaves no page behind for the next person.
    const state = ended === "left" ? null : { from: location.pathname + location.search };
    return <Navigate to="/login" replace state={state} />;
  }
  return (
    <LiveProvider>
      <Outlet />
    </LiveProvider>
  );
}

export function RequireRole({ role }: { role: Exclude<Role, "user"> }) {
  const user = useUser();
  const allowed = role === "admin" ? user.role === "admin" : isOperator(user);
  if (allowed) return <Outlet />;
  return (
    <EmptyState page icon={<IconPlugConnectedX size={32} />} title="This page is for administrators">
      Ask an administrator for the role, if you need it.
    </EmptyState>
  );
}

function Unreachable() {
  const { auth } = useBackend();
  return (
    <Center mih="100dvh" p="md">
      <Stack align="center" ta="center" maw={420}>
        <Loader type="dots" aria-hidden />
        <Title order={1} size="h3">
          StreamSpace cannot be reached
        </Title>
        <Text c="dimmed">Check your network connection. This page tries again every few seconds.</Text>
        <Button variant="default" onClick={() => void auth.start()}>
          Try now
        </Button>
      </Stack>
    </Center>
  );
}
