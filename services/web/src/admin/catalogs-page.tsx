/** Catalogs: add, sync, see what became of every file. */
import { ActionIcon, Alert, Badge, Button, Card, Checkbox, Drawer, Group, Loader, Modal, PasswordInput, SegmentedControl, Skeleton, Stack, Table, Text, TextInput, Tooltip } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useDisclosure } from "@mantine/hooks";
import { modals } from "@mantine/modals";
import { IconAlertCircle, IconFileSearch, IconPlus, IconRefresh, IconStack2, IconTrash } from "@tabler/icons-react";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useBackend } from "../api/backend";
import { unwrap } from "../api/client";
import { fieldErrors } from "../api/problem";
import type { Catalog, FileOutcome, NewCatalog } from "../api/types";
import { ago, plural } from "../lib/format";
import { useLive } from "../sessions/live";
import { notifyDone, notifyError } from "../shell/notify";
import { EmptyState, ErrorNote, PageHeader } from "../shell/states";
import { useTitle } from "../shell/title";

const STATES: Record<Catalog["state"], { color: string; text: string; busy: boolean }> = {
  pending: { color: "blue", text: "Waiting for its first sync", busy: true },
  syncing: { color: "blue", text: "Syncing", busy: true },
  synced: { color: "teal", text: "Up to date", busy: false },
  failed: { color: "red", text: "Sync failed", busy: false },
};

const OUTCOMES: Record<FileOutcome, { color: string; text: string }> = {
  accepted: { color: "teal", text: "Accepted" },
  corrected: { color: "blue", text: "Corrected" },
  skipped: { color: "gray", text: "Skipped" },
  refused: { color: "red", text: "Refused" },
};

/** `catalog-unreachable: what happened` -> `what happened`; the code is for programs. */
function withoutCode(error: string): string {
  return error.replace(/^[a-z]+(-[a-z]+)+: /, "");
}

export default function CatalogsPage() {
  useTitle("Catalogs");
  const { api } = useBackend();
  const { connected } = useLive();
  const [adding, addDialog] = useDisclosure(false);
  const [report, setReport] = useState<string | null>(null);
  const catalogs = useQuery({
    queryKey: ["catalogs"],
    queryFn: ({ signal }) => unwrap(api.GET("/api/v1/catalogs", { signal })),
    // A sync that runs is looked at often; its end also comes as an event.
    refetchInterval: (query) =>
      query.state.data?.items.some(({ state }) => STATES[state].busy) ? 2_000 : connected ? false : 10_000,
  });
  const button = (
    <Button leftSection={<IconPlus size={16} aria-hidden />} onClick={addDialog.open} data-testid="catalog-add">
      Add a catalog
    </Button>
  );
  return (
    <>
      <PageHeader title="Catalogs" description="Git repositories that templates come from.">
        {button}
      </PageHeader>
      {catalogs.isError && !catalogs.data ? (
        <ErrorNote error={catalogs.error} onRetry={() => void catalogs.refetch()} retrying={catalogs.isFetching} />
      ) : !catalogs.data ? (
        <Skeleton height={180} radius="lg" />
      ) : catalogs.data.items.length === 0 ? (
        <EmptyState icon={<IconStack2 size={32} />} title="No catalog yet" action={button}>
          Add a git repository of templates by its address; its templates appear in the catalog after the first sync.
        </EmptyState>
      ) : (
        <Stack>
          {catalogs.data.items.map((catalog) => (
            <CatalogCard key={catalog.id} catalog={catalog} onReport={() => setReport(catalog.id)} />
          ))}
        </Stack>
      )}
      <Modal opened={adding} onClose={addDialog.close} title="Add a catalog">
        <AddForm onClose={addDialog.close} />
      </Modal>
      <Drawer opened={report !== null} onClose={() => setReport(null)} title="What the last sync made of each file" size="xl">
        {report && <Report id={report} />}
      </Drawer>
    </>
  );
}

function CatalogCard({ catalog, onReport }: { catalog: Catalog; onReport: () => void }) {
  const { api } = useBackend();
  const client = useQueryClient();
  const params = { path: { catalog_id: catalog.id } };
  const reload = () => client.invalidateQueries({ queryKey: ["catalogs"] });
  const sync = useMutation({
    mutationFn: () => unwrap(api.POST("/api/v1/catalogs/{catalog_id}/sync", { params })),
    onSettled: reload,
    onError: notifyError,
  });
  const remove = useMutation({
    mutationFn: () => unwrap(api.DELETE("/api/v1/catalogs/{catalog_id}", { params })),
    onSuccess: () => {
      notifyDone(`${catalog.name} is removed.`);
      void client.invalidateQueries({ queryKey: ["templates"] });
    },
    onSettled: reload,
    onError: notifyError,
  });
  const confirmRemove = () =>
    modals.openConfirmModal({
      title: `Remove ${catalog.name}?`,
      children: (
        <Text size="sm">
          Its {plural(catalog.templateCount, "template")} leave the catalog. Sessions started from them go on.
        </Text>
      ),
      labels: { confirm: "Remove", cancel: "Cancel" },
      confirmProps: { color: "red" },
      onConfirm: () => remove.mutate(),
    });
  const look = STATES[catalog.state];
  const { counts } = catalog;
  return (
    <Card component="article" aria-label={catalog.name} data-testid={`catalog-${catalog.id}`}>
      <Group justify="space-between" align="flex-start" gap="md">
        <div style={{ minWidth: 0, flex: "1 1 260px" }}>
          <Group gap="sm">
            <Text fw={650}>{catalog.name}</Text>
            <Badge color={look.color} leftSection={look.busy ? <Loader size={10} color="currentColor" aria-hidden /> : null} data-testid="catalog-state">
              {look.text}
            </Badge>
            {catalog.builtIn && <Badge color="gray">Built in</Badge>}
          </Group>
          <Text size="sm" c="dimmed" className="mono break" mt={4}>
            {catalog.url}
            {catalog.branch && ` (${catalog.branch})`}
          </Text>
          <Text size="sm" mt={6}>
            {plural(catalog.templateCount, "template")} · {catalog.error ? "tried" : "synced"} {ago(catalog.lastSyncAt)}
            {catalog.commit && (
              <>
                {" "}
                · commit <span className="mono">{catalog.commit.slice(0, 8)}</span>
              </>
            )}
          </Text>
        </div>
        <Group gap="xs">
          <Button
            size="xs"
            variant="default"
            leftSection={<IconRefresh size={14} aria-hidden />}
            loading={sync.isPending}
            disabled={catalog.state === "syncing"}
            onClick={() => sync.mutate()}
          >
            Sync now
          </Button>
          <Button size="xs" variant="default" leftSection={<IconFileSearch size={14} aria-hidden />} onClick={onReport}>
            Report
          </Button>
          <Tooltip label={catalog.builtIn ? "The built-in catalog stays" : "Remove"}>
            <ActionIcon color="red" size={30} aria-label={`Remove ${catalog.name}`} disabled={catalog.builtIn} loading={remove.isPending} onClick={confirmRemove}>
              <IconTrash size={16} aria-hidden />
            </ActionIcon>
          </Tooltip>
        </Group>
      </Group>
      {catalog.error && (
        <Alert color="red" variant="light" icon={<IconAlertCircle aria-hidden />} p="sm" mt="sm">
          <Text size="sm" className="break">
            {withoutCode(catalog.error)}
          </Text>
        </Alert>
      )}
      <Group gap={6} mt="sm">
        {(["accepted", "corrected", "skipped", "refused"] as const).map((outcome) =>
          counts[outcome] > 0 ? (
            <Badge key={outcome} color={OUTCOMES[outcome].color} size="sm">
              {counts[outcome]} {outcome}
            </Badge>
          ) : null,
        )}
      </Group>
    </Card>
  );
}

function AddForm({ onClose }: { onClose: () => void }) {
  const { api } = useBackend();
  const client = useQueryClient();
  const form = useForm({
    initialValues: { name: "", url: "", branch: "", token: "", secret: false },
    validate: {
      name: (value) => (value.trim() ? null : "Give it a name."),
      url: (value) => (/^(https?:\/\/|ssh:\/\/|git@|\/|file:\/\/)/.test(value.trim()) ? null : "An https or ssh address, or an absolute path on the server."),
    },
  });
  const add = useMutation({
    mutationFn: ({ name, url, branch, token, secret }: typeof form.values) => {
      const body: NewCatalog = {
        name: name.trim(),
        url: url.trim(),
        ...(branch.trim() && { branch: branch.trim() }),
        ...(secret && token && { token }),
      };
      return unwrap(api.POST("/api/v1/catalogs", { body }));
    },
    onSuccess: (catalog) => {
      void client.invalidateQueries({ queryKey: ["catalogs"] });
      notifyDone(`${catalog.name} is added; its first sync has begun.`);
      onClose();
    },
    onError: (error) => form.setErrors(fieldErrors(error)),
  });
  return (
    <form onSubmit={form.onSubmit((values) => add.mutate(values))}>
      <Stack>
        {add.isError && <ErrorNote error={add.error} />}
        <TextInput label="Name" required data-autofocus data-testid="catalog-name" {...form.getInputProps("name")} />
        <TextInput label="Address" placeholder="https://…/templates.git" required data-testid="catalog-url" {...form.getInputProps("url")} />
        <TextInput label="Branch" placeholder="The repository’s own default" {...form.getInputProps("branch")} />
        <Checkbox label="The repository needs an access token" {...form.getInputProps("secret", { type: "checkbox" })} />
        {form.values.secret && <PasswordInput label="Access token" autoComplete="off" description="Never shown again" {...form.getInputProps("token")} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={add.isPending}>
            Add and sync
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function Report({ id }: { id: string }) {
  const { api } = useBackend();
  const [outcome, setOutcome] = useState<FileOutcome | "all">("all");
  const [typed, setTyped] = useState("");
  const report = useQuery({
    queryKey: ["report", id],
    queryFn: ({ signal }) => unwrap(api.GET("/api/v1/catalogs/{catalog_id}/report", { params: { path: { catalog_id: id } }, signal })),
  });
  if (report.isError) return <ErrorNote error={report.error} onRetry={() => void report.refetch()} retrying={report.isFetching} />;
  if (!report.data) return <Skeleton height={240} />;
  const { files } = report.data;
  const wanted = typed.trim().toLowerCase();
  const found = files.filter(
    (file) => (outcome === "all" || file.outcome === outcome) && (wanted === "" || `${file.path} ${file.reasons.join(" ")}`.toLowerCase().includes(wanted)),
  );
  const count = (which: FileOutcome) => files.filter((file) => file.outcome === which).length;
  return (
    <Stack>
      <SegmentedControl
        aria-label="Outcome"
        value={outcome}
        onChange={(value) => setOutcome(value)}
        style={{ overflowX: "auto" }}
        data={[
          { value: "all", label: `All ${files.length}` },
          ...(Object.keys(OUTCOMES) as FileOutcome[]).map((value) => ({ value, label: `${OUTCOMES[value].text} ${count(value)}` })),
        ]}
      />
      <TextInput type="search" placeholder="Filter by path or reason" aria-label="Filter the files" value={typed} onChange={(event) => setTyped(event.currentTarget.value)} />
      {found.length === 0 ? (
        <Text c="dimmed" ta="center" py="xl">
          {files.length === 0 ? "Nothing was synced yet." : "No file fits."}
        </Text>
      ) : (
        <Table.ScrollContainer minWidth={480}>
          <Table>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>File</Table.Th>
                <Table.Th>Outcome</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {found.slice(0, SHOWN).map((file) => (
                <Table.Tr key={file.path}>
                  <Table.Td>
                    <Text size="sm" className="mono break">
                      {file.path}
                    </Text>
                    {file.reasons.map((reason) => (
                      <Text key={reason} size="xs" c="dimmed" className="break">
                        {reason}
                      </Text>
                    ))}
                  </Table.Td>
                  <Table.Td style={{ verticalAlign: "top" }}>
                    <Badge color={OUTCOMES[file.outcome].color}>{OUTCOMES[file.outcome].text}</Badge>
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      {found.length > SHOWN && (
        <Text size="sm" c="dimmed" ta="center">
          {plural(found.length - SHOWN, "more file")}; filter to find them.
        </Text>
      )}
    </Stack>
  );
}

/** A browser draws so many rows at once without a pause. */
const SHOWN = 500;
