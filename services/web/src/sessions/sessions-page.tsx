import { Button, SegmentedControl, TextInput } from "@mantine/core";
import { IconAppWindow, IconPlus, IconSearch, IconSearchOff } from "@tabler/icons-react";
import { useState } from "react";
import { Link, useSearchParams } from "react-router";
import type { Session } from "../api/types";
import { EmptyState, ErrorNote, PageHeader } from "../shell/states";
import { useTitle } from "../shell/title";
import { dismiss, useDismissed } from "./dismissed";
import { useSessions } from "./queries";
import { SessionList, SessionSkeletons } from "./session-list";

export function SessionsPage() {
  useTitle("My sessions");
  return (
    <SessionsView
      title="My sessions"
      everyone={false}
      empty={
        <EmptyState
          icon={<IconAppWindow size={32} />}
          title="No sessions yet"
          action={
            <Button component={Link} to="/" leftSection={<IconPlus size={16} aria-hidden />}>
              Launch something
            </Button>
          }
        >
          Pick a desktop or an application in the catalog; it appears here while it lives.
        </EmptyState>
      }
    />
  );
}

/** Sessions that fit what is typed: by name, id, cluster, owner or state. */
export function matching(sessions: readonly Session[], typed: string, ended: boolean): Session[] {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  return sessions.filter((session) => {
    if (!ended && session.state === "terminated") return false;
    const text = [session.templateDisplayName, session.id, session.clusterId, session.owner.username, session.state].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

const RECENT_MS = 24 * 3_600_000;

/** The living and what failed within a day, newest first: a failure must not vanish unseen. */
export function currentSessions(living: readonly Session[], failed: readonly Session[], dismissed: ReadonlySet<string>, now: number): Session[] {
  const recent = ({ state, terminatedAt, updatedAt }: Session) => state !== "failed" || now - Date.parse(terminatedAt ?? updatedAt) < RECENT_MS;
  const byId = new Map([...failed, ...living].map((session) => [session.id, session]));
  return [...byId.values()]
    .filter((session) => recent(session) && !(session.state === "failed" && dismissed.has(session.id)))
    .sort((a, b) => Date.parse(b.createdAt) - Date.parse(a.createdAt));
}

export function SessionsView({ title, everyone, empty }: { title: string; everyone: boolean; empty: React.ReactNode }) {
  const [params, setParams] = useSearchParams();
  const ended = params.get("show") === "all";
  const [typed, setTyped] = useState("");
  const sessions = useSessions({ includeFinal: ended, everyone });
  const failed = useSessions({ includeFinal: true, everyone, state: ["failed"] });
  const dismissed = useDismissed();
  const [openedAt] = useState(() => Date.now());
  const items = sessions.data?.items ?? [];
  const found = matching(ended ? items : currentSessions(items, failed.data?.items ?? [], dismissed, openedAt), typed, ended);
  return (
    <>
      <PageHeader title={title}>
        <TextInput
          type="search"
          placeholder="Filter"
          aria-label="Filter the sessions"
          leftSection={<IconSearch size={16} aria-hidden />}
          value={typed}
          onChange={(event) => setTyped(event.currentTarget.value)}
        />
        <SegmentedControl
          aria-label="Which sessions"
          value={ended ? "all" : "current"}
          onChange={(value) => setParams(value === "all" ? { show: "all" } : {}, { replace: true })}
          data={[
            { value: "current", label: "Current" },
            { value: "all", label: "With ended" },
          ]}
        />
      </PageHeader>
      {sessions.isError && !sessions.data ? (
        <ErrorNote error={sessions.error} onRetry={() => void sessions.refetch()} retrying={sessions.isFetching} />
      ) : !sessions.data || failed.isPending ? (
        <SessionSkeletons />
      ) : found.length > 0 ? (
        <SessionList sessions={found} showOwner={everyone} onDismiss={ended ? undefined : dismiss} />
      ) : typed ? (
        <EmptyState icon={<IconSearchOff size={32} />} title="Nothing matches" action={<Button onClick={() => setTyped("")}>Show all</Button>}>
          No session fits “{typed}”.
        </EmptyState>
      ) : (
        empty
      )}
    </>
  );
}
