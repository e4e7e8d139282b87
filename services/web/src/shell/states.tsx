/** What a page shows when it has nothing to show: empty, failed, not there. */
import { Alert, Button, Center, Group, Stack, Text, ThemeIcon, Title } from "@mantine/core";
import { IconAlertCircle, IconCompass, IconRefresh } from "@tabler/icons-react";
import type { ReactNode } from "react";
import { Link } from "react-router";
import { explain } from "../api/problem";
import { useTitle } from "./title";

interface EmptyStateProps {
  icon: ReactNode;
  title: string;
  children?: ReactNode;
  action?: ReactNode;
  /** It is all that the page has, so its title is the page's. */
  page?: boolean;
}

export function EmptyState({ icon, title, children, action, page = false }: EmptyStateProps) {
  return (
    <Center py={64} px="md">
      <Stack align="center" gap="sm" maw={440} ta="center">
        <ThemeIcon size={64} radius="xl" variant="light" aria-hidden>
          {icon}
        </ThemeIcon>
        <Title order={page ? 1 : 3} size="h4">
          {title}
        </Title>
        {children && <Text c="dimmed">{children}</Text>}
        {action}
      </Stack>
    </Center>
  );
}

export function ErrorNote({ error, onRetry, retrying }: { error: unknown; onRetry?: () => void; retrying?: boolean }) {
  const { title, detail, hint, requestId } = explain(error);
  return (
    <Alert color="red" variant="light" icon={<IconAlertCircle aria-hidden />} title={title} role="alert">
      <Stack gap="xs" align="flex-start">
        <Text size="sm" className="break">
          {detail}
          {hint && ` ${hint}`}
        </Text>
        {requestId && (
          <Text size="xs" c="dimmed">
            Tell an administrator this request id: <span className="mono">{requestId}</span>
          </Text>
        )}
        {onRetry && (
          <Button size="xs" variant="default" leftSection={<IconRefresh size={14} aria-hidden />} loading={retrying} onClick={onRetry}>
            Try again
          </Button>
        )}
      </Stack>
    </Alert>
  );
}

export function NotFoundPage() {
  useTitle("Not found");
  return (
    <EmptyState
      page
      icon={<IconCompass size={32} />}
      title="There is nothing here"
      action={
        <Group>
          <Button component={Link} to="/">
            To the catalog
          </Button>
          <Button component={Link} to="/sessions" variant="default">
            My sessions
          </Button>
        </Group>
      }
    >
      The address may be mistyped, or what was here is gone.
    </EmptyState>
  );
}

export function PageHeader({ title, description, children }: { title: string; description?: string; children?: ReactNode }) {
  return (
    <Group justify="space-between" align="flex-end" gap="md" mb="lg">
      <div>
        <Title order={1} size="h2" style={{ letterSpacing: "-0.02em" }}>
          {title}
        </Title>
        {description && (
          <Text c="dimmed" mt={4}>
            {description}
          </Text>
        )}
      </div>
      {children && (
        <Group gap="sm" className="page-tools">
          {children}
        </Group>
      )}
    </Group>
  );
}
