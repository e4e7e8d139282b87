/** Clusters: who is there, how full they are, and how a new one joins. */
import { Alert, Badge, Button, Card, Checkbox, Code, Group, Modal, Progress, Skeleton, Stack, Text, TextInput, Tooltip } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useDisclosure } from "@mantine/hooks";
import { IconAlertTriangle, IconDownload, IconKey, IconPlayerPause, IconPlayerPlay, IconPlugOff, IconPlus, IconServer2 } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useBackend, useUser } from "../api/backend";
import { unwrap } from "../api/client";
import { fieldErrors } from "../api/problem";
import type { Cluster, Enrolment } from "../api/types";
import { download } from "../lib/clipboard";
import { ago, bytes, label, plural } from "../lib/format";
import { CopyButton } from "../shell/copy-button";
import { notifyDone, notifyError } from "../shell/notify";
import { EmptyState, ErrorNote, PageHeader } from "../shell/states";
import { useTitle } from "../shell/title";
import { agents, drained, PRESENCE, waiting } from "./presence";

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
  const presence = PRESENCE[cluster.presence];
  const { capacity } = cluster;
  const used = Math.max(cluster.runningSessions, cluster.reservedSessions);
  const share = capacity && capacity.maxSessions > 0 ? (used / capacity.maxSessions) * 100 : 0;
  const labels = Object.entries(cluster.labels ?? {});
  const admin = useUser().role === "admin";
  const [revoking, revokeDialog] = useDisclosure(false);
  const [renewing, renewDialog] = useDisclosure(false);
  return (
    <Card component="article" aria-label={cluster.name} data-testid={`cluster-${cluster.id}`}>
      <Group justify="space-between" wrap="nowrap" align="flex-start">
        <div style={{ minWidth: 0 }}>
          <Text fw={650} truncate>
            {cluster.name}
          </Text>
          <Text size="xs" c="dimmed" className="mono">
            {cluster.id}
          </Text>
        </div>
        <Tooltip label={presence.explanation} multiline maw={280}>
          <Badge color={presence.color} size="lg" data-testid="cluster-presence">
            {presence.text}
          </Badge>
        </Tooltip>
      </Group>
      {cluster.trouble && (
        <Alert color="yellow" variant="light" icon={<IconAlertTriangle aria-hidden />} p="xs" mt="sm">
          <Text size="sm">{cluster.trouble}</Text>
        </Alert>
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
      <DrainButton cluster={cluster} />
      {admin && (
        <Group gap="xs" mt="md">
          <Button size="xs" variant="default" leftSection={<IconKey size={14} aria-hidden />} onClick={renewDialog.open} data-testid="cluster-renew">
            New enrolment
          </Button>
          <Button size="xs" variant="default" color="red" leftSection={<IconPlugOff size={14} aria-hidden />} onClick={revokeDialog.open} data-testid="cluster-revoke">
            Revoke access
          </Button>
          <EnrolDialog opened={renewing} onClose={renewDialog.close} cluster={cluster} />
          <RevokeDialog opened={revoking} onClose={revokeDialog.close} cluster={cluster} />
        </Group>
      )}
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
      <Group justify="flex-end" mt="sm">
        <Button
          size="xs"
          variant="light"
          leftSection={<IconPlayerPlay size={14} aria-hidden />}
          loading={undrain.isPending}
          onClick={() => undrain.mutate()}
          data-testid="cluster-undrain"
        >
          Take sessions again
        </Button>
      </Group>
    );
  }
  return (
    <Group justify="flex-end" mt="sm">
      <Button
        size="xs"
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
    </Group>
  );
}

function RevokeDialog({ opened, onClose, cluster }: { opened: boolean; onClose: () => void; cluster: Cluster }) {
  const { api } = useBackend();
  const client = useQueryClient();
  const revoke = useMutation({
    mutationFn: () => unwrap(api.POST("/api/v1/clusters/{cluster_id}/revoke", { params: { path: { cluster_id: cluster.id } } })),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: ["clusters"] });
      onClose();
    },
  });
  return (
    <Modal opened={opened} onClose={onClose} title={`Revoke the access of ${cluster.name}?`}>
      <Stack>
        {revoke.isError && <ErrorNote error={revoke.error} />}
        <Text size="sm">
          Its agents are disconnected at once and cannot come back. Sessions there go on running, but nobody reaches them, until the cluster is given a new
          enrolment.
        </Text>
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button color="red" loading={revoke.isPending} onClick={() => revoke.mutate()} data-testid="cluster-revoke-confirm">
            Revoke access
          </Button>
        </Group>
      </Stack>
    </Modal>
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

/** With `cluster`: a new enrolment for one that exists. */
function EnrolDialog({ opened, onClose, cluster }: { opened: boolean; onClose: () => void; cluster?: Cluster }) {
  const [enrolment, setEnrolment] = useState<Enrolment | null>(null);
  const done = () => {
    onClose();
    setEnrolment(null);
  };
  return (
    <Modal
      opened={opened}
      onClose={done}
      title={enrolment ? "Start the agent" : cluster ? `A new enrolment for ${cluster.name}` : "Enrol a cluster"}
      size="lg"
      closeOnClickOutside={enrolment === null}
      closeOnEscape={enrolment === null}
    >
      {enrolment ? <EnrolmentFile enrolment={enrolment} onDone={done} /> : cluster ? <RenewForm cluster={cluster} onClose={done} onEnrolled={setEnrolment} /> : <EnrolForm onClose={done} onEnrolled={setEnrolment} />}
    </Modal>
  );
}

function RenewForm({ cluster, onClose, onEnrolled }: { cluster: Cluster; onClose: () => void; onEnrolled: (enrolment: Enrolment) => void }) {
  const { api } = useBackend();
  const client = useQueryClient();
  const renew = useMutation({
    mutationFn: () => unwrap(api.POST("/api/v1/clusters", { body: { id: cluster.id, replace: true } })),
    onSuccess: (enrolment) => {
      void client.invalidateQueries({ queryKey: ["clusters"] });
      onEnrolled(enrolment);
    },
  });
  return (
    <Stack>
      {renew.isError && <ErrorNote error={renew.error} />}
      <Text size="sm">
        What its agents have now stops working at once: they are disconnected until the new file is in the old one’s place. Sessions go on running meanwhile.
      </Text>
      <Group justify="flex-end">
        <Button variant="default" onClick={onClose}>
          Cancel
        </Button>
        <Button loading={renew.isPending} onClick={() => renew.mutate()} data-testid="cluster-renew-confirm">
          Make a new enrolment
        </Button>
      </Group>
    </Stack>
  );
}

const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;

function EnrolForm({ onClose, onEnrolled }: { onClose: () => void; onEnrolled: (enrolment: Enrolment) => void }) {
  const { api } = useBackend();
  const client = useQueryClient();
  const form = useForm({
    initialValues: { id: "", name: "", replace: false },
    validate: {
      id: (value) =>
        !LABEL.test(value) || value.length > 30
          ? "Small letters, digits and dashes, at most 30, beginning and ending with a letter or digit."
          : value === "core"
            ? "“core” is taken by StreamSpace itself."
            : null,
    },
  });
  const enrol = useMutation({
    mutationFn: ({ id, name, replace }: typeof form.values) =>
      unwrap(api.POST("/api/v1/clusters", { body: { id, replace, ...(name.trim() && { name: name.trim() }) } })),
    onSuccess: (enrolment) => {
      void client.invalidateQueries({ queryKey: ["clusters"] });
      onEnrolled(enrolment);
    },
    onError: (error) => form.setErrors(fieldErrors(error)),
  });
  return (
    <form onSubmit={form.onSubmit((values) => enrol.mutate(values))}>
      <Stack>
        {enrol.isError && <ErrorNote error={enrol.error} />}
        <TextInput label="Id" description="A short name for good, for instance berlin-1" required data-autofocus {...form.getInputProps("id")} />
        <TextInput label="Display name" {...form.getInputProps("name")} />
        <Checkbox
          label="It exists already: make a new enrolment"
          description="The old one stops working at once."
          {...form.getInputProps("replace", { type: "checkbox" })}
        />
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={enrol.isPending}>
            Enrol
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function EnrolmentFile({ enrolment, onDone }: { enrolment: Enrolment; onDone: () => void }) {
  const name = `${enrolment.clusterId}.enrolment.json`;
  const content = `${JSON.stringify(enrolment, null, 2)}\n`;
  const command = `chmod 600 ${name}\nSTREAMSPACE_AGENT_ENROLMENT_FILE=${name} streamspace-agent`;
  return (
    <Stack>
      <Alert color="yellow" variant="light" icon={<IconAlertTriangle aria-hidden />} title="Shown only now">
        The file holds the cluster’s secret credentials. Save it on a machine of the cluster; it cannot be shown again.
      </Alert>
      <Group justify="space-between">
        <Text fw={600} className="mono">
          {name}
        </Text>
        <Group gap="xs">
          <CopyButton value={content} label="Copy the file" />
          <Button size="xs" leftSection={<IconDownload size={14} aria-hidden />} onClick={() => download(name, content)}>
            Download
          </Button>
        </Group>
      </Group>
      <Code block mah={220} style={{ overflow: "auto" }} data-testid="enrolment-file">
        {content}
      </Code>
      <Group justify="space-between">
        <Text fw={600}>Then start the agent there</Text>
        <CopyButton value={command} label="Copy the commands" />
      </Group>
      <Code block>{command}</Code>
      <Text size="sm" c="dimmed">
        The cluster shows as online within seconds of the agent’s start.
      </Text>
      <Group justify="flex-end">
        <Button onClick={onDone}>I have saved it</Button>
      </Group>
    </Stack>
  );
}
