import { Button, SegmentedControl, TextInput } from "@mantine/core";
import { IconAppWindow, IconPlus, IconSearch, IconSearchOff } from "@tabler/icons-react";
import { useState } from "react";
import { Link, useSearchParams } from "react-router";
import type { Session } from "../api/types";
import { EmptyState, ErrorNote, PageHeader } from "../shell/states";
import { useTitle } from "../shell/title";
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

export function SessionsView({ title, everyone, empty }: { title: string; everyone: boolean; empty: React.ReactNode }) {
  const [params, setParams] = useSearchParams();
  const ended = params.get("show") === "all";
  const [typed, setTyped] = useState("");
  const sessions = useSessions({ includeFinal: ended, everyone });
  const found = matching(sessions.data?.items ?? [], typed, ended);
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
      ) : !sessions.data ? (
        <SessionSkeletons />
      ) : found.length > 0 ? (
        <SessionList sessions={found} showOwner={everyone} />
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
