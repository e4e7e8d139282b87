/** Operations: what waits, what gave up, and what to do about it. */
import { Alert, Anchor, Badge, Button, Card, Code, Group, SegmentedControl, Skeleton, Stack, Table, Text, Title } from "@mantine/core";
import { modals } from "@mantine/modals";
import { IconMailCheck, IconRefresh, IconTrash } from "@tabler/icons-react";
import { keepPreviousData, useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import { useBackend } from "../api/backend";
import { unwrap } from "../api/client";
import type { Cluster, DeadLetter, DeadLetterState } from "../api/types";
import { ago, dateTime, label } from "../lib/format";
import { notifyDone, notifyError } from "../shell/notify";
import { EmptyState, ErrorNote, PageHeader } from "../shell/states";
import { useTitle } from "../shell/title";
import { Badges } from "./badges";
import { waiting } from "./presence";

const CAUSES: Record<DeadLetter["cause"], string> = {
  terminated: "Its agent refused it",
  "max-deliveries": "Nobody acknowledged it",
  "gave-up": "Its effect never came",
};
const STATES: Record<DeadLetterState, { color: string; text: string }> = {
  open: { color: "red", text: "Open" },
  retried: { color: "teal", text: "Retried" },
  discarded: { color: "gray", text: "Discarded" },
};

export default function OperationsPage() {
  useTitle("Operations");
  return (
    <>
      <PageHeader title="Operations" description="Clusters and their waiting commands, and commands that gave up." />
      <Stack gap="xl">
        <Clusters />
        <DeadLetters />
      </Stack>
    </>
  );
}

function Clusters() {
  const { api } = useBackend();
  const clusters = useQuery({
    queryKey: ["clusters"],
    queryFn: ({ signal }) => unwrap(api.GET("/api/v1/clusters", { signal })),
    refetchInterval: 5_000,
  });
  if (clusters.isError && !clusters.data) {
    return <ErrorNote error={clusters.error} onRetry={() => void clusters.refetch()} retrying={clusters.isFetching} />;
  }
  if (!clusters.data) return <Skeleton height={120} radius="lg" />;
  return (
    <section aria-labelledby="operations-clusters">
      <Title order={2} size="h4" mb="sm" id="operations-clusters">
        Clusters
      </Title>
      <Card p={0}>
        <Table.ScrollContainer minWidth={560}>
          <Table>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Cluster</Table.Th>
                <Table.Th>Presence</Table.Th>
                <Table.Th>Sessions</Table.Th>
                <Table.Th>Waiting commands</Table.Th>
                <Table.Th>Last heard</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {clusters.data.items.map((cluster) => (
                <ClusterRow key={cluster.id} cluster={cluster} />
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
        {clusters.data.items.length === 0 && (
          <Text c="dimmed" size="sm" p="md">
            No cluster is enrolled yet.
          </Text>
        )}
      </Card>
    </section>
  );
}

function ClusterRow({ cluster }: { cluster: Cluster }) {
  return (
    <Table.Tr data-testid={`operations-cluster-${cluster.id}`}>
      <Table.Td>
        <Text size="sm" fw={600}>
          {cluster.name}
        </Text>
        {cluster.trouble && (
          <Text size="xs" c="dimmed" className="break">
            {cluster.trouble}
          </Text>
        )}
      </Table.Td>
      <Table.Td>
        <Badges cluster={cluster} />
      </Table.Td>
      <Table.Td>{Math.max(cluster.runningSessions, cluster.reservedSessions)}</Table.Td>
      <Table.Td>
        <Text size="sm" c={cluster.waitingCommands > 0 ? undefined : "dimmed"}>
          {waiting(cluster)}
        </Text>
      </Table.Td>
      <Table.Td>
        <Text size="sm" c="dimmed">
          {ago(cluster.lastSeenAt)}
        </Text>
      </Table.Td>
    </Table.Tr>
  );
}

function useDeadLetters(shown: "open" | "settled") {
  const { api } = useBackend();
  const states: DeadLetterState[] = shown === "open" ? ["open"] : ["retried", "discarded"];
  return useInfiniteQuery({
    queryKey: ["dead-letters", shown],
    initialPageParam: null as string | null,
    queryFn: ({ pageParam, signal }) =>
      unwrap(
        api.GET("/api/v1/dead-letters", {
          params: { query: { state: states, limit: 50, ...(pageParam && { cursor: pageParam }) } },
          signal,
        }),
      ),
    getNextPageParam: (page) => page.nextCursor ?? null,
    placeholderData: keepPreviousData,
    refetchInterval: 10_000,
  });
}

function DeadLetters() {
  const [shown, setShown] = useState<"open" | "settled">("open");
  const letters = useDeadLetters(shown);
  const found = letters.data?.pages.flatMap((page) => page.items);
  return (
    <section aria-labelledby="operations-letters">
      <Group justify="space-between" mb="sm">
        <Title order={2} size="h4" id="operations-letters">
          Dead letters
        </Title>
        <SegmentedControl
          size="xs"
          aria-label="Which dead letters"
          value={shown}
          onChange={(value) => setShown(value === "settled" ? "settled" : "open")}
          data={[
            { value: "open", label: "Open" },
            { value: "settled", label: "Settled" },
          ]}
        />
      </Group>
      {letters.isError && !found ? (
        <ErrorNote error={letters.error} onRetry={() => void letters.refetch()} retrying={letters.isFetching} />
      ) : !found ? (
        <Skeleton height={160} radius="lg" />
      ) : found.length === 0 ? (
        <EmptyState icon={<IconMailCheck size={32} />} title={shown === "open" ? "No command has given up" : "Nothing was settled yet"}>
          A command that an agent refuses, or that never has its effect, is kept here with the reason.
        </EmptyState>
      ) : (
        <Stack gap="sm">
          {found.map((letter) => (
            <Letter key={letter.id} letter={letter} />
          ))}
        </Stack>
      )}
      {letters.hasNextPage && (
        <Group justify="center" mt="lg">
          <Button variant="default" loading={letters.isFetchingNextPage} onClick={() => void letters.fetchNextPage()}>
            Show more
          </Button>
        </Group>
      )}
    </section>
  );
}

function Letter({ letter }: { letter: DeadLetter }) {
  const { color, text } = STATES[letter.state];
  const facts = [
    letter.clusterId,
    letter.generation != null && `generation ${letter.generation}`,
    (letter.attempt ?? 1) > 1 && `attempt ${letter.attempt}`,
    letter.deliveries != null && `delivered ${letter.deliveries === 1 ? "once" : `${letter.deliveries} times`}`,
    letter.originSequence != null && `${letter.originStream} #${letter.originSequence}`,
  ].filter(Boolean);
  return (
    <Card component="article" aria-label={`Dead letter ${letter.id}`} data-testid={`letter-${letter.id}`} p="md">
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <div style={{ minWidth: 0 }}>
          <Group gap="xs">
            <Text fw={650}>{letter.action ? label(letter.action) : "Unreadable command"}</Text>
            <Badge color={color} size="sm">
              {text}
            </Badge>
          </Group>
          <Anchor size="sm" component={Link} to={`/sessions/${letter.sessionId}`} className="mono break">
            {letter.sessionId}
          </Anchor>
        </div>
        {letter.state === "open" && <LetterActions letter={letter} />}
      </Group>
      <Text size="sm" mt="xs" className="break">
        {CAUSES[letter.cause]}: {letter.reason}
      </Text>
      <Text size="xs" c="dimmed" mt={4}>
        {dateTime(letter.diedAt)} · {facts.join(" · ")}
      </Text>
      {letter.settledBy && (
        <Text size="xs" c="dimmed" mt={4}>
          {text} {ago(letter.settledAt)} by {letter.settledBy.name ?? letter.settledBy.id}
          {letter.retriedAs && (
            <>
              {" "}
              as <Code>{letter.retriedAs}</Code>
            </>
          )}
        </Text>
      )}
    </Card>
  );
}

function LetterActions({ letter }: { letter: DeadLetter }) {
  const { api } = useBackend();
  const client = useQueryClient();
  const params = { path: { letter_id: letter.id } };
  const settled = {
    onError: notifyError,
    onSettled: () => client.invalidateQueries({ queryKey: ["dead-letters"] }),
  };
  const retry = useMutation({
    ...settled,
    mutationFn: () => unwrap(api.POST("/api/v1/dead-letters/{letter_id}/retry", { params })),
    onSuccess: ({ session }) => notifyDone(`Sent again; the session is ${session.state} now.`),
  });
  const discard = useMutation({
    ...settled,
    mutationFn: () => unwrap(api.POST("/api/v1/dead-letters/{letter_id}/discard", { params })),
    onSuccess: () => notifyDone("Discarded."),
  });
  const confirmRetry = () =>
    modals.openConfirmModal({
      title: "Retry this command?",
      children: (
        <Stack gap="xs">
          <Text size="sm">
            The session gets a new command for the same purpose. A session that failed is started again, with its home but without what was
            not saved.
          </Text>
          <Alert color="blue" variant="light" p="xs">
            <Text size="sm">Put right first what made it fail: {letter.reason}</Text>
          </Alert>
        </Stack>
      ),
      labels: { confirm: "Retry", cancel: "Cancel" },
      onConfirm: () => retry.mutate(),
    });
  const confirmDiscard = () =>
    modals.openConfirmModal({
      title: "Discard this dead letter?",
      children: <Text size="sm">Nothing is done for its command any more. Who discarded it is kept.</Text>,
      labels: { confirm: "Discard", cancel: "Cancel" },
      confirmProps: { color: "red" },
      onConfirm: () => discard.mutate(),
    });
  const busy = retry.isPending || discard.isPending;
  return (
    <Group gap="xs" wrap="nowrap">
      <Button
        size="xs"
        variant="default"
        leftSection={<IconRefresh size={14} aria-hidden />}
        disabled={busy || letter.commandId == null}
        loading={retry.isPending}
        onClick={confirmRetry}
        data-testid="letter-retry"
      >
        Retry
      </Button>
      <Button
        size="xs"
        variant="subtle"
        color="red"
        leftSection={<IconTrash size={14} aria-hidden />}
        disabled={busy}
        loading={discard.isPending}
        onClick={confirmDiscard}
        data-testid="letter-discard"
      >
        Discard
      </Button>
    </Group>
  );
}
