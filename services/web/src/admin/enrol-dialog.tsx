/** Enrolling a cluster, or one anew: a form, then the file that is shown once. */
import { Alert, Button, Checkbox, Code, Group, Modal, Stack, Text, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { IconAlertTriangle, IconDownload, IconInfoCircle } from "@tabler/icons-react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useBackend } from "../api/backend";
import { unwrap } from "../api/client";
import { fieldErrors } from "../api/problem";
import type { Cluster, Enrolment } from "../api/types";
import { download } from "../lib/clipboard";
import { CopyButton } from "../shell/copy-button";
import { ErrorNote } from "../shell/states";

/** With `cluster`: a new enrolment for one that exists. */
export function EnrolDialog({ opened, onClose, cluster }: { opened: boolean; onClose: () => void; cluster?: Cluster }) {
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

/** Whether an address leads back to the machine that dials it. */
function isLoopback(address: string): boolean {
  // Browsers take hosts of schemes they do not know as they stand.
  const { hostname } = new URL(address.replace(/^[a-z]+:/, "http:"));
  return hostname === "localhost" || hostname.endsWith(".localhost") || hostname === "[::1]" || /^127\./.test(hostname);
}

function EnrolmentFile({ enrolment, onDone }: { enrolment: Enrolment; onDone: () => void }) {
  const name = `${enrolment.clusterId}.enrolment.json`;
  const content = `${JSON.stringify(enrolment, null, 2)}\n`;
  const here = [...enrolment.natsUrls, enrolment.tunnelUrl].find(isLoopback);
  const command = `chmod 600 ${name}\nSTREAMSPACE_AGENT_ENROLMENT_FILE=${name} streamspace-agent`;
  return (
    <Stack>
      <Alert color="yellow" variant="light" icon={<IconAlertTriangle aria-hidden />} title="Shown only now">
        The file holds the cluster’s secret credentials. Save it on a machine of the cluster; it cannot be shown again.
      </Alert>
      {here && (
        <Alert color="blue" variant="light" icon={<IconInfoCircle aria-hidden />} title="For an agent on the control plane’s own machine" data-testid="enrolment-local">
          It leads to <span className="mono">{here}</span>, which no other machine reaches. To let agents of others in, see “Connect a second cluster” in the documentation, then make a new enrolment.
        </Alert>
      )}
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
