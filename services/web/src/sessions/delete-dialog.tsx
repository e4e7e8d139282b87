import { Alert, Button, Checkbox, Group, Modal, Stack, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { useState } from "react";
import type { Session } from "../api/types";
import { useSessionActions } from "./queries";

export function DeleteDialog({ session, onClose }: { session: Session | null; onClose: () => void }) {
  return (
    <Modal opened={session !== null} onClose={onClose} title="Delete this session?" size={440}>
      {session && <DeleteForm key={session.id} session={session} onClose={onClose} />}
    </Modal>
  );
}

function DeleteForm({ session, onClose }: { session: Session; onClose: () => void }) {
  const { remove } = useSessionActions(session.id);
  const [deleteHome, setDeleteHome] = useState(false);
  return (
    <Stack>
      <Text size="sm">
        <b>{session.templateDisplayName}</b> stops and what is not saved is lost.
        {session.persistentHome && " Files in the home stay for the next sessions."}
      </Text>
      {session.persistentHome && (
        <Checkbox label="Delete the home too" checked={deleteHome} onChange={(event) => setDeleteHome(event.currentTarget.checked)} />
      )}
      {deleteHome && (
        <Alert color="red" variant="light" icon={<IconAlertTriangle aria-hidden />} p="sm">
          <Text size="sm">
            All files of {session.owner.username} on this cluster are removed, also those made in other sessions. This cannot be undone.
          </Text>
        </Alert>
      )}
      <Group justify="flex-end">
        <Button variant="default" onClick={onClose}>
          Cancel
        </Button>
        <Button
          color="red"
          data-autofocus
          data-testid="confirm-delete"
          loading={remove.isPending}
          onClick={() => remove.mutate(deleteHome, { onSuccess: onClose })}
        >
          {deleteHome ? "Delete session and home" : "Delete"}
        </Button>
      </Group>
    </Stack>
  );
}
