/** Who of a cluster's agents is let in, and an end to a cluster that will not come back. */
import { Button, Checkbox, Group, Modal, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconKey, IconPlugOff, IconTrash } from "@tabler/icons-react";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useBackend } from "../api/backend";
import { unwrap } from "../api/client";
import type { Cluster, ClusterList } from "../api/types";
import { plural } from "../lib/format";
import { notifyDone } from "../shell/notify";
import { ErrorNote } from "../shell/states";
import { EnrolDialog } from "./enrol-dialog";

export function AccessButtons({ cluster }: { cluster: Cluster }) {
  const [renewing, renewDialog] = useDisclosure(false);
  const [revoking, revokeDialog] = useDisclosure(false);
  const [removing, removeDialog] = useDisclosure(false);
  return (
    <>
      <Button size="xs" px={10} variant="default" leftSection={<IconKey size={14} aria-hidden />} onClick={renewDialog.open} data-testid="cluster-renew">
        New enrolment
      </Button>
      {cluster.revokedAt ? (
        <Button size="xs" px={10} variant="default" color="red" leftSection={<IconTrash size={14} aria-hidden />} onClick={removeDialog.open} data-testid="cluster-remove">
          Remove
        </Button>
      ) : (
        <Button size="xs" px={10} variant="default" color="red" leftSection={<IconPlugOff size={14} aria-hidden />} onClick={revokeDialog.open} data-testid="cluster-revoke">
          Revoke access
        </Button>
      )}
      <EnrolDialog opened={renewing} onClose={renewDialog.close} cluster={cluster} />
      <RevokeDialog opened={revoking} onClose={revokeDialog.close} cluster={cluster} />
      <RemoveDialog opened={removing} onClose={removeDialog.close} cluster={cluster} />
    </>
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

function RemoveDialog({ opened, onClose, cluster }: { opened: boolean; onClose: () => void; cluster: Cluster }) {
  const { api } = useBackend();
  const client = useQueryClient();
  const [agreed, setAgreed] = useState(false);
  const sessions = cluster.reservedSessions;
  const remove = useMutation({
    mutationFn: () =>
      unwrap(api.DELETE("/api/v1/clusters/{cluster_id}", { params: { path: { cluster_id: cluster.id }, query: { endSessions: agreed } } })),
    onSuccess: ({ endedSessions }) => {
      notifyDone(`${cluster.name} is removed.${endedSessions ? ` ${plural(endedSessions, "session")} ended.` : ""}`);
      client.setQueryData<ClusterList>(["clusters"], (shown) => shown && { ...shown, items: shown.items.filter(({ id }) => id !== cluster.id) });
    },
    onSettled: () => client.invalidateQueries({ queryKey: ["clusters"] }),
  });
  const close = () => {
    onClose();
    setAgreed(false);
    remove.reset();
  };
  return (
    <Modal opened={opened} onClose={close} title={`Remove ${cluster.name} for good?`}>
      <Stack>
        {remove.isError && <ErrorNote error={remove.error} />}
        <Text size="sm">
          It leaves every list, and the commands that wait for it are dropped. What still runs on its machines goes on until somebody ends it there. A cluster that is
          enrolled as <span className="mono">{cluster.id}</span> later starts clean.
        </Text>
        {sessions > 0 && (
          <Checkbox
            label={`End its ${plural(sessions, "session")}`}
            description="They are shown as failed, and their owners are told why. What they kept there cannot be reached from here any more."
            checked={agreed}
            onChange={(event) => setAgreed(event.currentTarget.checked)}
            data-testid="cluster-remove-sessions"
          />
        )}
        <Group justify="flex-end">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button color="red" disabled={sessions > 0 && !agreed} loading={remove.isPending} onClick={() => remove.mutate()} data-testid="cluster-remove-confirm">
            Remove
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
