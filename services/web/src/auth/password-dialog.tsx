import { Button, Group, Modal, PasswordInput, Stack, Text } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useMutation } from "@tanstack/react-query";
import { useBackend, useUser } from "../api/backend";
import { unwrap } from "../api/client";
import { fieldErrors } from "../api/problem";
import { notifyDone } from "../shell/notify";
import { ErrorNote } from "../shell/states";

export const MIN_PASSWORD = 10;

export function passwordProblem(value: string): string | null {
  return value.length < MIN_PASSWORD ? `Use at least ${MIN_PASSWORD} characters.` : null;
}

export function PasswordDialog({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  return (
    <Modal opened={opened} onClose={onClose} title="Change password">
      <PasswordForm onClose={onClose} />
    </Modal>
  );
}

function PasswordForm({ onClose }: { onClose: () => void }) {
  const { api, auth } = useBackend();
  const { username } = useUser();
  const form = useForm({
    initialValues: { currentPassword: "", newPassword: "", repeat: "" },
    validate: {
      newPassword: passwordProblem,
      repeat: (value, { newPassword }) => (value === newPassword ? null : "The two do not match."),
    },
  });
  const change = useMutation({
    mutationFn: async ({ currentPassword, newPassword }: { currentPassword: string; newPassword: string }) => {
      await unwrap(api.POST("/api/v1/users/me/password", { body: { currentPassword, newPassword } }));
      // The change ends the old sign-ins; this device goes on with a new one.
      await auth.signIn(username, newPassword).catch(() => undefined);
    },
    onSuccess: () => {
      notifyDone("Your password is changed. Other devices are signed out.");
      onClose();
    },
    onError: (error) => form.setErrors(fieldErrors(error)),
  });
  return (
    <form onSubmit={form.onSubmit((values) => change.mutate(values))}>
      <Stack>
        <Text size="sm" c="dimmed">
          Your other devices are signed out.
        </Text>
        {change.isError && <ErrorNote error={change.error} />}
        <input type="text" name="username" autoComplete="username" value={username} readOnly hidden />
        <PasswordInput label="Current password" autoComplete="current-password" required data-autofocus {...form.getInputProps("currentPassword")} />
        <PasswordInput
          label="New password"
          description={`At least ${MIN_PASSWORD} characters`}
          autoComplete="new-password"
          required
          {...form.getInputProps("newPassword")}
        />
        <PasswordInput label="New password again" autoComplete="new-password" required {...form.getInputProps("repeat")} />
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={change.isPending}>
            Change password
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
