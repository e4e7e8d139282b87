import { Anchor, Button, Card, CloseButton, Group, Skeleton, Stack, Text, TextInput, Title, VisuallyHidden } from "@mantine/core";
import { useDebouncedCallback, useHotkeys } from "@mantine/hooks";
import { IconAlertTriangle, IconClock, IconPlayerPlayFilled, IconSearch, IconSearchOff, IconServerOff, IconStack2 } from "@tabler/icons-react";
import { keepPreviousData, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { Link, useSearchParams } from "react-router";
import { isOperator, useBackend, useUser } from "../api/backend";
import { unwrap } from "../api/client";
import type { OfferedRuntimes, Template } from "../api/types";
import { label, plural } from "../lib/format";
import { EmptyState, ErrorNote, PageHeader } from "../shell/states";
import { useTitle } from "../shell/title";
import { type Availability, availability, mayLaunch, split } from "./availability";
import { TemplateTile } from "./icons";
import { LaunchDialog } from "./launch-dialog";

/** As many as the server gives at once: what can be launched comes first, wherever it is in the list. */
const PAGE = 200;
const SHOWN_AT_ONCE = 60;

function useTemplates(search: string, category: string | null) {
  const { api } = useBackend();
  return useInfiniteQuery({
    queryKey: ["templates", search, category],
    initialPageParam: null as string | null,
    queryFn: ({ pageParam, signal }) =>
      unwrap(
        api.GET("/api/v1/templates", {
          params: {
            query: {
              limit: PAGE,
              ...(search && { search }),
              ...(category && { category }),
              ...(pageParam && { cursor: pageParam }),
            },
          },
          signal,
        }),
      ),
    getNextPageParam: (page) => page.nextCursor ?? null,
    placeholderData: keepPreviousData,
  });
}

/** What the clusters can run; clusters come and go without telling everybody. */
function useRuntimes() {
  const { api } = useBackend();
  return useQuery({
    queryKey: ["runtimes"],
    queryFn: ({ signal }) => unwrap(api.GET("/api/v1/runtimes", { signal })),
    refetchInterval: 30_000,
  });
}

/** The template a "launch again" link names. */
function useTemplate(id: string | null) {
  const { api } = useBackend();
  return useQuery({
    queryKey: ["template", id],
    enabled: id !== null,
    queryFn: ({ signal }) =>
      unwrap(api.GET("/api/v1/templates/{template_id}", { params: { path: { template_id: id ?? "" } }, signal })),
  });
}

export function CatalogPage() {
  useTitle("Catalog");
  const [params, setParams] = useSearchParams();
  const search = params.get("q") ?? "";
  const category = params.get("category");
  const [typed, setTyped] = useState(search);
  const [launching, setLaunching] = useState<Template | null>(null);
  const againId = params.get("launch");
  const again = useTemplate(againId);
  const field = useRef<HTMLInputElement>(null);
  const templates = useTemplates(search, category);
  const [first] = templates.data?.pages ?? [];
  const items = templates.data?.pages.flatMap((page) => page.items) ?? [];
  const runtimes = useRuntimes();
  const opened = launching ?? again.data ?? null;

  const { hasNextPage, isFetchingNextPage, isError, fetchNextPage } = templates;
  useEffect(() => {
    if (hasNextPage && !isFetchingNextPage && !isError) void fetchNextPage();
  }, [hasNextPage, isFetchingNextPage, isError, fetchNextPage]);

  const change = (name: "q" | "category" | "launch", value: string | null) =>
    setParams(
      (before) => {
        const after = new URLSearchParams(before);
        if (value) after.set(name, value);
        else after.delete(name);
        return after;
      },
      { replace: true },
    );
  const searchFor = useDebouncedCallback((value: string) => change("q", value.trim() || null), 200);
  useHotkeys([["/", () => field.current?.focus()]]);

  const clear = () => {
    setTyped("");
    setParams({}, { replace: true });
  };

  return (
    <>
      <PageHeader title="Catalog" description="Pick a desktop or an application; it opens in this browser.">
        <TextInput
          ref={field}
          className="wide-search"
          size="md"
          type="search"
          placeholder="Search"
          aria-label="Search the catalog"
          leftSection={<IconSearch size={18} aria-hidden />}
          rightSection={
            typed ? (
              <CloseButton
                aria-label="Clear the search"
                onClick={() => {
                  setTyped("");
                  change("q", null);
                  field.current?.focus();
                }}
              />
            ) : null
          }
          value={typed}
          onChange={(event) => {
            setTyped(event.currentTarget.value);
            searchFor(event.currentTarget.value);
          }}
          data-testid="catalog-search"
        />
      </PageHeader>
      <Categories categories={first?.categories ?? {}} chosen={category} onChoose={(value) => change("category", value)} />
      <VisuallyHidden role="status">{first ? plural(first.total, "template") : "Loading"}</VisuallyHidden>
      {again.isError && (
        <Stack mb="md">
          <ErrorNote error={again.error} />
        </Stack>
      )}
      {templates.isError && !first ? (
        <ErrorNote error={templates.error} onRetry={() => void templates.refetch()} retrying={templates.isFetching} />
      ) : !first || runtimes.isPending ? (
        <Skeletons />
      ) : items.length === 0 ? (
        <NothingFound filtered={search !== "" || category !== null} onClear={clear} />
      ) : (
        <div style={{ opacity: templates.isPlaceholderData ? 0.6 : 1, transition: "opacity 120ms" }}>
          <Templates key={`${search}/${category}`} items={items} offered={runtimes.data} onOpen={setLaunching} />
        </div>
      )}
      <LaunchDialog
        template={opened}
        availability={opened && availability(opened, runtimes.data)}
        onClose={() => {
          setLaunching(null);
          if (againId) change("launch", null);
        }}
      />
    </>
  );
}

/** What can be launched, then what cannot, as one long list shown bit by bit. */
function Templates({ items, offered, onOpen }: { items: Template[]; offered: OfferedRuntimes | undefined; onOpen: (template: Template) => void }) {
  const [shown, setShown] = useState(SHOWN_AT_ONCE);
  const { here, elsewhere } = split(items, offered);
  const cards = (templates: Template[]) => (
    <div className="cards">
      {templates.map((template) => (
        <TemplateCard key={template.id} template={template} availability={availability(template, offered)} onOpen={() => onOpen(template)} />
      ))}
    </div>
  );
  const elsewhereShown = elsewhere.slice(0, Math.max(0, shown - here.length));
  return (
    <>
      {here.length > 0 && cards(here.slice(0, shown))}
      {elsewhereShown.length > 0 && (
        <section aria-label="Not available here" data-testid="catalog-elsewhere">
          <ElsewhereHeading some={here.length > 0} connected={(offered?.items.length ?? 0) > 0} />
          {cards(elsewhereShown)}
        </section>
      )}
      {shown < items.length && (
        <Group justify="center" mt="xl">
          <Button variant="default" onClick={() => setShown(shown + SHOWN_AT_ONCE)}>
            Show more
          </Button>
        </Group>
      )}
    </>
  );
}

function ElsewhereHeading({ some, connected }: { some: boolean; connected: boolean }) {
  const admin = useUser().role === "admin";
  return (
    <div style={{ marginBlock: some ? "36px 14px" : "0 14px" }}>
      <Title order={2} size="h4">
        Not available here yet
      </Title>
      <Text size="sm" c="dimmed">
        {connected ? "No connected cluster can run these." : "No cluster is connected."}{" "}
        {admin ? (
          <Anchor component={Link} to="/admin/clusters" size="sm">
            Add a cluster
          </Anchor>
        ) : (
          "Ask an administrator to add one."
        )}
      </Text>
    </div>
  );
}

function Categories({ categories, chosen, onChoose }: { categories: Record<string, number>; chosen: string | null; onChoose: (category: string | null) => void }) {
  const sorted = Object.entries(categories).sort(([a, many], [b, few]) => few - many || a.localeCompare(b));
  if (sorted.length === 0) return null;
  const chip = (value: string | null, text: string, count?: number) => (
    <Button
      key={text}
      size="xs"
      radius="xl"
      style={{ flex: "none" }}
      variant={chosen === value ? "filled" : "default"}
      aria-pressed={chosen === value}
      onClick={() => onChoose(value)}
      rightSection={count === undefined ? null : <span style={{ opacity: 0.6 }}>{count}</span>}
    >
      {text}
    </Button>
  );
  return (
    <div className="chips" role="group" aria-label="Categories" style={{ marginBottom: 20 }}>
      {chip(null, "All")}
      {sorted.map(([category, count]) => chip(category, label(category), count))}
    </div>
  );
}

function TemplateCard({ template, availability: can, onOpen }: { template: Template; availability: Availability; onOpen: () => void }) {
  const launchable = mayLaunch(can);
  return (
    <Card className="template-card" data-testid={`template-card-${template.id}`} data-unusable={launchable ? undefined : true} component="article" aria-label={template.displayName}>
      <Group wrap="nowrap" align="flex-start" mb="sm">
        <TemplateTile template={template} />
        <div style={{ minWidth: 0 }}>
          <Text fw={650} lh={1.3} lineClamp={2}>
            {template.displayName}
          </Text>
          <Text size="xs" c="dimmed" truncate>
            {template.categories.length > 0 ? template.categories.map(label).join(", ") : label(template.catalogId)}
          </Text>
        </div>
      </Group>
      <Text size="sm" c="dimmed" lineClamp={3} className="break" style={{ flex: 1 }} title={template.description}>
        {template.description || "No description."}
      </Text>
      <Group justify="space-between" mt="md" wrap="nowrap" gap="xs">
        {can.kind === "ready" ? (
          <Text size="xs" c="dimmed">
            {template.protocol === "http" ? "Web app" : "Desktop"}
          </Text>
        ) : (
          <Hindrance availability={can} />
        )}
        {launchable ? (
          <Button
            size="xs"
            variant="light"
            style={{ flex: "none" }}
            leftSection={<IconPlayerPlayFilled size={13} aria-hidden />}
            onClick={onOpen}
            aria-label={`Launch ${template.displayName}`}
            data-testid={`launch-${template.id}`}
          >
            Launch
          </Button>
        ) : (
          <Button size="xs" variant="default" style={{ flex: "none" }} onClick={onOpen} aria-label={`Details of ${template.displayName}`} data-testid={`details-${template.id}`}>
            Details
          </Button>
        )}
      </Group>
    </Card>
  );
}

/** Why a template does not start at once; leads admins to where it can be helped. */
function Hindrance({ availability: { kind, note } }: { availability: Exclude<Availability, { kind: "ready" }> }) {
  const admin = useUser().role === "admin";
  const Icon = { waits: IconClock, "needs-cluster": IconServerOff, unusable: IconAlertTriangle }[kind];
  return (
    <Group gap={6} wrap="nowrap" style={{ minWidth: 0 }}>
      <Icon size={14} aria-hidden style={{ flex: "none" }} />
      {admin && kind === "needs-cluster" ? (
        <Anchor component={Link} to="/admin/clusters" size="xs" c="inherit" underline="always" lh={1.3}>
          {note}
        </Anchor>
      ) : (
        <Text size="xs" lh={1.3} lineClamp={3} className="break" title={note}>
          {note}
        </Text>
      )}
    </Group>
  );
}

function NothingFound({ filtered, onClear }: { filtered: boolean; onClear: () => void }) {
  const operator = isOperator(useUser());
  if (filtered) {
    return (
      <EmptyState icon={<IconSearchOff size={32} />} title="Nothing matches" action={<Button onClick={onClear}>Show everything</Button>}>
        No template fits the search and category. Try fewer letters or another word.
      </EmptyState>
    );
  }
  return (
    <EmptyState
      icon={<IconStack2 size={32} />}
      title="The catalog is empty"
      action={
        operator ? (
          <Button component={Link} to="/admin/catalogs">
            Add a catalog
          </Button>
        ) : undefined
      }
    >
      {operator ? "Add a git repository of templates, or wait for the first sync to end." : "Ask an administrator to add a catalog of templates."}
    </EmptyState>
  );
}

function Skeletons() {
  return (
    <div className="cards" aria-hidden="true">
      {Array.from({ length: 8 }, (_, index) => (
        <Card key={index}>
          <Group wrap="nowrap" mb="md">
            <Skeleton width={48} height={48} radius="md" style={{ flex: "none" }} />
            <Stack gap={8} style={{ flex: 1 }}>
              <Skeleton height={14} width="70%" />
              <Skeleton height={10} width="40%" />
            </Stack>
          </Group>
          <Skeleton height={10} mb={8} />
          <Skeleton height={10} mb={8} />
          <Skeleton height={10} width="60%" mb="lg" />
          <Skeleton height={28} width={90} ml="auto" />
        </Card>
      ))}
    </div>
  );
}
