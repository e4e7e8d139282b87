/** Clusters: who is there, how full they are, and how a new one joins. */
import { Alert, Badge, Button, Card, Checkbox, Group, Modal, Progress, Skeleton, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconAlertTriangle, IconPlayerPause, IconPlayerPlay, IconPlus, IconServer2 } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useBackend, useUser } from "../api/backend";
import { unwrap } from "../api/client";
import type { Cluster } from "../api/types";
import { ago, bytes, label, plural } from "../lib/format";
import { notifyDone, notifyError } from "../shell/notify";
import { EmptyState, ErrorNote, PageHeader } from "../shell/states";
import { useTitle } from "../shell/title";
import { Badges } from "./badges";
import { AccessButtons } from "./cluster-access";
import { EnrolDialog } from "./enrol-dialog";
import { agents, drained, revoked, waiting } from "./presence";

export default function ClustersPage() {
  useTitle("Clusters");
  const { api } = useBackend();
  const admin = useUser().role === "admin";
  const [enrol, enrolDialog] = useDisclosure(false);
  const clusters = useQuery({
    queryKey: ["clusters"],
    queryFn: ({ signal }) => unwrap(api.GET("/api/v1/clusters", { signal })),
    refetchInterval: 5_000,
  });
  const button = admin && (
    <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={enrolDialog.open} data-testid="cluster-enrol">
      Enrol a cluster
    </Button>
  );
  return (
    <>
      <PageHeader title="Clusters" description="Where sessions run.">
        {button}
      </PageHeader>
      {clusters.isError && !clusters.data ? (
        <ErrorNote error={clusters.error} onRetry={() => void clusters.refetch()} retrying={clusters.isFetching} />
      ) : !clusters.data ? (
        <Skeleton height={180} radius="lg" />
      ) : clusters.data.items.length === 0 ? (
        <EmptyState icon={<IconServer2 size={32} />} title="No cluster yet" action={button}>
          Sessions need a place to run. Enrol a cluster and start its agent there; it dials in by itself.
        </EmptyState>
      ) : (
        <div className="cards cards-wide">
          {clusters.data.items.map((cluster) => (
            <ClusterCard key={cluster.id} cluster={cluster} />
          ))}
        </div>
      )}
      <EnrolDialog opened={enrol} onClose={enrolDialog.close} />
    </>
  );
}

function ClusterCard({ cluster }: { cluster: Cluster }) {
  const { capacity } = cluster;
  const used = Math.max(cluster.runningSessions, cluster.reservedSessions);
  const share = capacity && capacity.maxSessions > 0 ? (used / capacity.maxSessions) * 100 : 0;
  const labels = Object.entries(cluster.labels ?? {});
  const admin = useUser().role === "admin";
  return (
    <Card component="article" aria-label={cluster.name} className="cluster-card" data-testid={`cluster-${cluster.id}`}>
      <Group justify="space-between" wrap="nowrap" align="flex-start">
        <div style={{ minWidth: 0 }}>
          <Text fw={650} truncate>
            {cluster.name}
          </Text>
          <Text size="xs" c="dimmed" className="mono">
            {cluster.id}
          </Text>
        </div>
        <div style={{ flexShrink: 0 }}>
          <Badges cluster={cluster} size="lg" />
        </div>
      </Group>
      {cluster.trouble && (
        <Alert color="yellow" variant="light" icon={<IconAlertTriangle aria-hidden />} p="xs" mt="sm">
          <Text size="sm">{cluster.trouble}</Text>
        </Alert>
      )}
      {cluster.revokedAt && (
        <Text size="sm" c="dimmed" mt="sm" data-testid="cluster-revoked">
          {revoked(cluster)}
        </Text>
      )}
      {cluster.drainedAt && (
        <Text size="sm" c="dimmed" mt="sm" data-testid="cluster-drained">
          {drained(cluster)}
        </Text>
      )}
      <Stack gap={6} mt="md">
        <Group justify="space-between">
          <Text size="sm">Sessions</Text>
          <Text size="sm" fw={600}>
            {used}
            {capacity ? ` of ${capacity.maxSessions}` : ""}
          </Text>
        </Group>
        <Progress value={share} color={share > 90 ? "red" : share > 70 ? "yellow" : "brand"} aria-label="Sessions in use" />
      </Stack>
      <dl className="facts" style={{ marginTop: 14 }}>
        <Fact name="Agents" value={agents(cluster)} />
        <Fact name="Runtime" value={cluster.runtime ? label(cluster.runtime) : "not known yet"} />
        <Fact name="Capacity" value={capacity ? `${capacity.cpu} CPU, ${bytes(capacity.memory)}` : "not known yet"} />
        <Fact name="Waiting commands" value={waiting(cluster)} />
        <Fact name="Last heard" value={ago(cluster.lastSeenAt)} />
      </dl>
      {labels.length > 0 && (
        <Group gap={6} mt="xs">
          {labels.map(([name, value]) => (
            <Badge key={name} color="gray" size="sm">
              {name}={value}
            </Badge>
          ))}
        </Group>
      )}
      <Group gap="xs" mt="auto" pt="md">
        {(!cluster.revokedAt || cluster.drainedAt) && <DrainButton cluster={cluster} />}
        {admin && <AccessButtons cluster={cluster} />}
      </Group>
    </Card>
  );
}

function DrainButton({ cluster }: { cluster: Cluster }) {
  const { api } = useBackend();
  const client = useQueryClient();
  const [opened, dialog] = useDisclosure(false);
  const [hibernate, setHibernate] = useState(false);
  const params = { path: { cluster_id: cluster.id } };
  const settled = { onError: notifyError, onSettled: () => client.invalidateQueries({ queryKey: ["clusters"] }) };
  const drain = useMutation({
    ...settled,
    mutationFn: () => unwrap(api.POST("/api/v1/clusters/{cluster_id}/drain", { params, body: { hibernate } })),
    onSuccess: ({ hibernating }) => {
      dialog.close();
      notifyDone(`${cluster.name} takes no new sessions.${hibernating ? ` ${plural(hibernating, "session")} put to rest.` : ""}`);
    },
  });
  const undrain = useMutation({
    ...settled,
    mutationFn: () => unwrap(api.POST("/api/v1/clusters/{cluster_id}/undrain", { params })),
    onSuccess: () => notifyDone(`${cluster.name} takes sessions again.`),
  });
  if (cluster.drainedAt) {
    return (
      <Button
        size="xs"
        px={10}
        variant="light"
        leftSection={<IconPlayerPlay size={14} aria-hidden />}
        loading={undrain.isPending}
        onClick={() => undrain.mutate()}
        data-testid="cluster-undrain"
      >
        Take sessions again
      </Button>
    );
  }
  return (
    <>
      <Button
        size="xs"
        px={10}
        variant="default"
        leftSection={<IconPlayerPause size={14} aria-hidden />}
        onClick={dialog.open}
        data-testid="cluster-drain"
      >
        Drain
      </Button>
      <Modal opened={opened} onClose={dialog.close} title={`Drain ${cluster.name}?`}>
        <Stack>
          <Text size="sm">
            No new session is started there, and none that is hibernated there is woken, until it takes sessions again. Those that run go on.
          </Text>
          <Checkbox
            label="Hibernate the sessions that run there"
            description="Their users lose what is not saved; their files stay."
            checked={hibernate}
            onChange={(event) => setHibernate(event.currentTarget.checked)}
          />
          <Group justify="flex-end">
            <Button variant="default" onClick={dialog.close}>
              Cancel
            </Button>
            <Button color={hibernate ? "red" : undefined} loading={drain.isPending} onClick={() => drain.mutate()} data-testid="cluster-drain-confirm">
              Drain
            </Button>
          </Group>
        </Stack>
      </Modal>
    </>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
