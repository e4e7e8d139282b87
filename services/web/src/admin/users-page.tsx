/** Users: find, create, change, disable. */
import { ActionIcon, Avatar, Badge, Button, Card, Group, Menu, Modal, PasswordInput, Select, Skeleton, Stack, Table, Text, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useDebouncedValue } from "@mantine/hooks";
import { modals } from "@mantine/modals";
import { IconBan, IconCircleCheck, IconDots, IconKey, IconPencil, IconPlus, IconSearch, IconSearchOff } from "@tabler/icons-react";
import { keepPreviousData, useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useBackend, useUser } from "../api/backend";
import { unwrap } from "../api/client";
import { fieldErrors } from "../api/problem";
import type { Role, User, UserChange } from "../api/types";
import { passwordProblem } from "../auth/password-dialog";
import { ago, initials, label } from "../lib/format";
import { notifyDone, notifyError } from "../shell/notify";
import { EmptyState, ErrorNote, PageHeader } from "../shell/states";
import { useTitle } from "../shell/title";

const ROLES: { value: Role; label: string }[] = [
  { value: "user", label: "User: launches and uses sessions" },
  { value: "operator", label: "Operator: sees all sessions, manages catalogs" },
  { value: "admin", label: "Admin: everything, also users and clusters" },
];
const ROLE_COLORS: Record<Role, string> = { admin: "brand", operator: "teal", user: "gray" };

function useUsers(search: string) {
  const { api } = useBackend();
  return useInfiniteQuery({
    queryKey: ["users", search],
    initialPageParam: null as string | null,
    queryFn: ({ pageParam, signal }) =>
      unwrap(
        api.GET("/api/v1/users", {
          params: { query: { limit: 100, ...(search && { search }), ...(pageParam && { cursor: pageParam }) } },
          signal,
        }),
      ),
    getNextPageParam: (page) => page.nextCursor ?? null,
    placeholderData: keepPreviousData,
  });
}

/**
 * Changes a user. A form full of what was seen must not undo what somebody else changed
 * meanwhile, so that is refused; disabling and a new password are meant whatever the rest is.
 */
function useChangeUser() {
  const { api, auth } = useBackend();
  const client = useQueryClient();
  const me = useUser();
  return useMutation({
    mutationFn: ({ user, change }: { user: User; change: UserChange }) =>
      unwrap(
        api.PATCH("/api/v1/users/{user_id}", {
          params: {
            path: { user_id: user.id },
            ...("displayName" in change && { header: { "if-match": `"${user.version}"` } }),
          },
          body: change,
        }),
      ),
    onSuccess: (changed) => {
      if (changed.id === me.id) auth.updateUser(changed);
    },
    onSettled: () => client.invalidateQueries({ queryKey: ["users"] }),
  });
}

type Dialog = { kind: "create" } | { kind: "edit" | "password"; user: User };

export default function UsersPage() {
  useTitle("Users");
  const [typed, setTyped] = useState("");
  const [search] = useDebouncedValue(typed.trim(), 250);
  const [dialog, setDialog] = useState<Dialog | null>(null);
  const users = useUsers(search);
  const found = users.data?.pages.flatMap((page) => page.items);
  return (
    <>
      <PageHeader title="Users" description="Who may sign in, and what they may do.">
        <TextInput
          type="search"
          placeholder="Search"
          aria-label="Search the users"
          leftSection={<IconSearch size={16} aria-hidden />}
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
          data-testid="users-search"
        />
        <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={() => setDialog({ kind: "create" })} data-testid="user-create">
          New user
        </Button>
      </PageHeader>
      {users.isError && !found ? (
        <ErrorNote error={users.error} onRetry={() => void users.refetch()} retrying={users.isFetching} />
      ) : !found ? (
        <Skeleton height={280} radius="lg" />
      ) : found.length === 0 ? (
        <EmptyState icon={<IconSearchOff size={32} />} title="Nobody found">
          No user fits “{search}”.
        </EmptyState>
      ) : (
        <Card p={0}>
          <Table.ScrollContainer minWidth={620}>
            <Table highlightOnHover>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>Name</Table.Th>
                  <Table.Th>Role</Table.Th>
                  <Table.Th>State</Table.Th>
                  <Table.Th>Last sign-in</Table.Th>
                  <Table.Th aria-label="Actions" />
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {found.map((user) => (
                  <UserRow key={user.id} user={user} onDialog={setDialog} />
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        </Card>
      )}
      {users.hasNextPage && (
        <Group justify="center" mt="lg">
          <Button variant="default" loading={users.isFetchingNextPage} onClick={() => void users.fetchNextPage()}>
            Show more
          </Button>
        </Group>
      )}
      <UserDialog dialog={dialog} onClose={() => setDialog(null)} />
    </>
  );
}

function UserRow({ user, onDialog }: { user: User; onDialog: (dialog: Dialog) => void }) {
  const me = useUser();
  const change = useChangeUser();
  const name = user.displayName ?? user.username;
  const setDisabled = (disabled: boolean) =>
    change.mutate(
      { user, change: { disabled } },
      { onSuccess: () => notifyDone(disabled ? `${name} is disabled.` : `${name} may sign in again.`), onError: notifyError },
    );
  const confirmDisable = () =>
    modals.openConfirmModal({
      title: `Disable ${name}?`,
      children: <Text size="sm">{name} is signed out everywhere and cannot sign in until enabled again. Running sessions go on.</Text>,
      labels: { confirm: "Disable", cancel: "Cancel" },
      confirmProps: { color: "red" },
      onConfirm: () => setDisabled(true),
    });
  return (
    <Table.Tr data-testid={`user-row-${user.username}`}>
      <Table.Td>
        <Group gap="sm" wrap="nowrap">
          <Avatar radius="xl" size={34} color={ROLE_COLORS[user.role]}>
            {initials(name)}
          </Avatar>
          <div style={{ minWidth: 0 }}>
            <Text fw={600} size="sm" truncate maw={260}>
              {name}
              {user.id === me.id && (
                <Text span c="dimmed" fw={400}>
                  {" "}
                  (you)
                </Text>
              )}
            </Text>
            <Text size="xs" c="dimmed" truncate maw={260}>
              {[user.username, user.email].filter(Boolean).join(" · ")}
            </Text>
          </div>
        </Group>
      </Table.Td>
      <Table.Td>
        <Badge color={ROLE_COLORS[user.role]}>{label(user.role)}</Badge>
      </Table.Td>
      <Table.Td>
        <Badge color={user.disabled ? "red" : "teal"} variant="dot">
          {user.disabled ? "Disabled" : "Active"}
        </Badge>
      </Table.Td>
      <Table.Td>
        <Text size="sm" c="dimmed">
          {ago(user.lastLoginAt)}
        </Text>
      </Table.Td>
      <Table.Td align="right">
        <Menu>
          <Menu.Target>
            <ActionIcon aria-label={`Change ${name}`} loading={change.isPending}>
              <IconDots size={18} aria-hidden />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item leftSection={<IconPencil size={16} aria-hidden />} onClick={() => onDialog({ kind: "edit", user })}>
              Edit
            </Menu.Item>
            <Menu.Item leftSection={<IconKey size={16} aria-hidden />} onClick={() => onDialog({ kind: "password", user })}>
              Set a new password
            </Menu.Item>
            {user.disabled ? (
              <Menu.Item leftSection={<IconCircleCheck size={16} aria-hidden />} onClick={() => setDisabled(false)}>
                Enable
              </Menu.Item>
            ) : (
              <Menu.Item color="red" disabled={user.id === me.id} leftSection={<IconBan size={16} aria-hidden />} onClick={confirmDisable}>
                Disable
              </Menu.Item>
            )}
          </Menu.Dropdown>
        </Menu>
      </Table.Td>
    </Table.Tr>
  );
}

const TITLES: Record<Dialog["kind"], string> = { create: "New user", edit: "Edit user", password: "Set a new password" };

function UserDialog({ dialog, onClose }: { dialog: Dialog | null; onClose: () => void }) {
  return (
    <Modal opened={dialog !== null} onClose={onClose} title={dialog ? TITLES[dialog.kind] : ""}>
      {dialog?.kind === "create" && <CreateForm onClose={onClose} />}
      {dialog?.kind === "edit" && <EditForm user={dialog.user} onClose={onClose} />}
      {dialog?.kind === "password" && <PasswordForm user={dialog.user} onClose={onClose} />}
    </Modal>
  );
}

function Buttons({ onClose, busy, text }: { onClose: () => void; busy: boolean; text: string }) {
  return (
    <Group justify="flex-end">
      <Button variant="default" onClick={onClose}>
        Cancel
      </Button>
      <Button type="submit" loading={busy}>
        {text}
      </Button>
    </Group>
  );
}

const orNull = (value: string): string | null => value.trim() || null;

function CreateForm({ onClose }: { onClose: () => void }) {
  const { api } = useBackend();
  const client = useQueryClient();
  const form = useForm({
    initialValues: { username: "", displayName: "", email: "", role: "user" as Role, password: "" },
    validate: { username: (value) => (value.trim() ? null : "Give a user name."), password: passwordProblem },
  });
  const create = useMutation({
    mutationFn: ({ username, displayName, email, role, password }: typeof form.values) =>
      unwrap(api.POST("/api/v1/users", { body: { username: username.trim(), displayName: orNull(displayName), email: orNull(email), role, password } })),
    onSuccess: (user) => {
      void client.invalidateQueries({ queryKey: ["users"] });
      notifyDone(`${user.username} can sign in now.`);
      onClose();
    },
    onError: (error) => form.setErrors(fieldErrors(error)),
  });
  return (
    <form onSubmit={form.onSubmit((values) => create.mutate(values))} autoComplete="off">
      <Stack>
        {create.isError && <ErrorNote error={create.error} />}
        <TextInput label="User name" required data-autofocus data-testid="user-username" {...form.getInputProps("username")} />
        <TextInput label="Display name" {...form.getInputProps("displayName")} />
        <TextInput label="Email" type="email" {...form.getInputProps("email")} />
        <Select label="Role" data={ROLES} allowDeselect={false} {...form.getInputProps("role")} />
        <PasswordInput
          label="Password"
          description="At least 10 characters. Hand it over safely; the user can change it."
          autoComplete="new-password"
          required
          data-testid="user-password"
          {...form.getInputProps("password")}
        />
        <Buttons onClose={onClose} busy={create.isPending} text="Create" />
      </Stack>
    </form>
  );
}

function EditForm({ user, onClose }: { user: User; onClose: () => void }) {
  const me = useUser();
  const change = useChangeUser();
  const form = useForm({
    initialValues: { displayName: user.displayName ?? "", email: user.email ?? "", role: user.role },
  });
  return (
    <form
      onSubmit={form.onSubmit(({ displayName, email, role }) =>
        change.mutate(
          { user, change: { displayName: orNull(displayName), email: orNull(email), ...(role !== user.role && { role }) } },
          {
            onSuccess: () => {
              notifyDone(`${user.username} is changed.`);
              onClose();
            },
            onError: (error) => form.setErrors(fieldErrors(error)),
          },
        ),
      )}
    >
      <Stack>
        {change.isError && <ErrorNote error={change.error} />}
        <TextInput label="Display name" data-autofocus {...form.getInputProps("displayName")} />
        <TextInput label="Email" type="email" {...form.getInputProps("email")} />
        <Select
          label="Role"
          data={ROLES}
          allowDeselect={false}
          disabled={user.id === me.id}
          description={user.id === me.id ? "Another admin can change your role." : undefined}
          {...form.getInputProps("role")}
        />
        <Buttons onClose={onClose} busy={change.isPending} text="Save" />
      </Stack>
    </form>
  );
}

function PasswordForm({ user, onClose }: { user: User; onClose: () => void }) {
  const change = useChangeUser();
  const form = useForm({ initialValues: { password: "" }, validate: { password: passwordProblem } });
  return (
    <form
      onSubmit={form.onSubmit(({ password }) =>
        change.mutate(
          { user, change: { password } },
          {
            onSuccess: () => {
              notifyDone(`${user.username} has a new password.`);
              onClose();
            },
            onError: (error) => form.setErrors(fieldErrors(error)),
          },
        ),
      )}
    >
      <Stack>
        <Text size="sm" c="dimmed">
          {user.displayName ?? user.username} is signed out everywhere and signs in with the new password.
        </Text>
        {change.isError && <ErrorNote error={change.error} />}
        <PasswordInput label="New password" description="At least 10 characters" autoComplete="new-password" required data-autofocus {...form.getInputProps("password")} />
        <Buttons onClose={onClose} busy={change.isPending} text="Set password" />
      </Stack>
    </form>
  );
}
