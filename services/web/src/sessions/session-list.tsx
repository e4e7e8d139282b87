/** Sessions as rows with what can be done to each; used for one's own and for everybody's. */
import { ActionIcon, Button, Card, Group, Menu, Skeleton, Text, Tooltip, UnstyledButton } from "@mantine/core";
import {
  IconCopy, IconDots, IconExternalLink, IconInfoCircle, IconMoon, IconPlayerPlay, IconProgress, IconRotateClockwise, IconSun, IconTrash, IconX,
} from "@tabler/icons-react";
import { useState } from "react";
import { Link } from "react-router";
import type { Session } from "../api/types";
import { SessionTile } from "../catalog/icons";
import { copyText } from "../lib/clipboard";
import { ago } from "../lib/format";
import { notifyDone } from "../shell/notify";
import { DeleteDialog } from "./delete-dialog";
import { DetailsDrawer } from "./details-drawer";
import { useSessionActions } from "./queries";
import { actionsFor, shortReason } from "./state";
import { StateBadge } from "./state-badge";
import { useOpenSession } from "./use-open";

interface SessionListProps {
  sessions: Session[];
  showOwner?: boolean;
  /** Given where a failed session can be put out of sight. */
  onDismiss?: (id: string) => void;
}

export function SessionList({ sessions, showOwner = false, onDismiss }: SessionListProps) {
  const [details, setDetails] = useState<string | null>(null);
  const [deleting, setDeleting] = useState<Session | null>(null);
  return (
    <>
      <Card p={0} component="section" aria-label="Sessions">
        {sessions.map((session) => (
          <SessionRow
            key={session.id}
            session={session}
            showOwner={showOwner}
            onDetails={() => setDetails(session.id)}
            onDelete={() => setDeleting(session)}
            onDismiss={onDismiss && session.state === "failed" ? () => onDismiss(session.id) : undefined}
          />
        ))}
      </Card>
      <DetailsDrawer id={details} onClose={() => setDetails(null)} />
      <DeleteDialog session={deleting} onClose={() => setDeleting(null)} />
    </>
  );
}

interface RowProps {
  session: Session;
  showOwner: boolean;
  onDetails: () => void;
  onDelete: () => void;
  onDismiss?: () => void;
}

function SessionRow({ session, showOwner, onDetails, onDelete, onDismiss }: RowProps) {
  const actions = actionsFor(session.state);
  const facts = [
    ...(showOwner ? [session.owner.username] : []),
    session.clusterId ?? "not placed yet",
    `created ${ago(session.createdAt)}`,
    ...(session.lastActivityAt ? [`used ${ago(session.lastActivityAt)}`] : []),
  ];
  const why = session.state === "failed" || session.state === "pending" || session.state === "unknown" ? shortReason(session) : null;
  return (
    <div className="session-row" data-testid={`session-row-${session.id}`}>
      <SessionTile session={session} size={42} />
      <UnstyledButton onClick={onDetails} style={{ minWidth: 0, borderRadius: 6 }} aria-label={`Details of ${session.templateDisplayName}, ${session.id}`}>
        <Text fw={600} truncate>
          {session.templateDisplayName}
        </Text>
        <Text size="xs" c="dimmed" truncate>
          {facts.join(" · ")}
        </Text>
        {why && (
          <Text size="xs" c={session.state === "failed" ? "red" : "dimmed"} lineClamp={2} className="break" mt={2}>
            {why}
          </Text>
        )}
      </UnstyledButton>
      <StateBadge session={session} />
      <Group gap={6} wrap="nowrap" className="session-actions">
        <PrimaryAction session={session} />
        <Secondary session={session} onDetails={onDetails} />
        {onDismiss ? (
          <Tooltip label="Dismiss">
            <ActionIcon size="lg" aria-label={`Dismiss ${session.templateDisplayName}`} data-testid="session-dismiss" onClick={onDismiss}>
              <IconX size={18} aria-hidden />
            </ActionIcon>
          </Tooltip>
        ) : (
          <Tooltip label="Delete">
            <ActionIcon
              size="lg"
              color="red"
              aria-label={`Delete ${session.templateDisplayName}`}
              data-testid="session-delete"
              disabled={!actions.includes("delete")}
              onClick={onDelete}
            >
              <IconTrash size={18} aria-hidden />
            </ActionIcon>
          </Tooltip>
        )}
      </Group>
    </div>
  );
}

function PrimaryAction({ session }: { session: Session }) {
  const open = useOpenSession();
  const { wake } = useSessionActions(session.id);
  const actions = actionsFor(session.state);
  if (actions.includes("open")) {
    const Icon = session.protocol === "http" ? IconExternalLink : IconPlayerPlay;
    return (
      <Button size="sm" leftSection={<Icon size={16} aria-hidden />} data-testid="session-open" onClick={() => void open(session)}>
        Open
      </Button>
    );
  }
  if (actions.includes("wake")) {
    return (
      <Button size="sm" variant="light" leftSection={<IconSun size={16} aria-hidden />} data-testid="session-wake" loading={wake.isPending} onClick={() => wake.mutate()}>
        Wake
      </Button>
    );
  }
  if (actions.includes("progress")) {
    return (
      <Button size="sm" variant="default" component={Link} to={`/sessions/${session.id}`} leftSection={<IconProgress size={16} aria-hidden />}>
        Progress
      </Button>
    );
  }
  if (actions.includes("launch-again")) {
    return (
      <Button size="sm" variant="default" component={Link} to={launchAgainPath(session)} leftSection={<IconRotateClockwise size={16} aria-hidden />}>
        Launch again
      </Button>
    );
  }
  return null;
}

export function launchAgainPath({ templateId }: Pick<Session, "templateId">): string {
  return `/?launch=${encodeURIComponent(templateId)}`;
}

function Secondary({ session, onDetails }: { session: Session; onDetails: () => void }) {
  const { hibernate } = useSessionActions(session.id);
  const canHibernate = actionsFor(session.state).includes("hibernate");
  return (
    <Menu>
      <Menu.Target>
        <ActionIcon size="lg" aria-label={`More for ${session.templateDisplayName}`} data-testid="session-more">
          <IconDots size={18} aria-hidden />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        {canHibernate && (
          <Menu.Item leftSection={<IconMoon size={16} aria-hidden />} data-testid="session-hibernate" onClick={() => hibernate.mutate()}>
            Hibernate
          </Menu.Item>
        )}
        <Menu.Item leftSection={<IconInfoCircle size={16} aria-hidden />} onClick={onDetails}>
          Details
        </Menu.Item>
        <Menu.Item
          leftSection={<IconCopy size={16} aria-hidden />}
          onClick={() => void copyText(session.id).then((copied) => copied && notifyDone("The id is copied."))}
        >
          Copy id
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

export function SessionSkeletons() {
  return (
    <Card p={0} aria-hidden="true">
      {Array.from({ length: 4 }, (_, index) => (
        <div key={index} className="session-row">
          <Skeleton width={42} height={42} radius="md" />
          <div>
            <Skeleton height={13} width="40%" mb={8} />
            <Skeleton height={10} width="60%" />
          </div>
          <Skeleton height={24} width={90} radius="xl" />
          <Skeleton height={34} width={120} visibleFrom="sm" />
        </div>
      ))}
    </Card>
  );
}
