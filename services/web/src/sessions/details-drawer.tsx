import { Alert, Divider, Drawer, Group, Skeleton, Stack, Text, Timeline } from "@mantine/core";
import { IconInfoCircle } from "@tabler/icons-react";
import type { ReactNode } from "react";
import type { Session } from "../api/types";
import { SessionTile } from "../catalog/icons";
import { ago, cpu, dateTime, duration, memory } from "../lib/format";
import { CopyButton } from "../shell/copy-button";
import { ErrorNote } from "../shell/states";
import { momentsOf } from "./history";
import { useHistory, useSession } from "./queries";
import { nextStep, reasonText, STATE_LOOKS } from "./state";
import { StateBadge } from "./state-badge";

export function DetailsDrawer({ id, onClose }: { id: string | null; onClose: () => void }) {
  return (
    <Drawer opened={id !== null} onClose={onClose} title="Session" size={460}>
      {id && <Details id={id} />}
    </Drawer>
  );
}

function Details({ id }: { id: string }) {
  const session = useSession(id);
  const history = useHistory(id, session.data?.version);
  if (session.isError) return <ErrorNote error={session.error} onRetry={() => void session.refetch()} />;
  if (!session.data) return <Skeleton height={240} />;
  const told = session.data;
  const why = reasonText(told);
  const next = nextStep(told);
  return (
    <Stack>
      <Group wrap="nowrap">
        <SessionTile session={told} />
        <div style={{ flex: 1, minWidth: 0 }}>
          <Text fw={650} truncate>
            {told.templateDisplayName}
          </Text>
          <StateBadge session={told} size="md" />
        </div>
      </Group>
      <Text size="sm" c="dimmed">
        {STATE_LOOKS[told.state].explanation}
      </Text>
      {why && (
        <Alert variant="light" color={told.state === "failed" ? "red" : "blue"} icon={<IconInfoCircle aria-hidden />} p="sm">
          <Text size="sm" className="break">
            {why} {next}
          </Text>
        </Alert>
      )}
      <Facts session={told} />
      <Divider label="History" labelPosition="left" />
      {history.isError && <ErrorNote error={history.error} onRetry={() => void history.refetch()} />}
      <Timeline bulletSize={14} lineWidth={2} active={999} data-testid="session-history">
        {momentsOf(history.data ?? []).map(({ key, at, title, detail, color }) => (
          <Timeline.Item key={key} color={color} title={<Text size="sm" fw={600}>{title}</Text>}>
            {detail && (
              <Text size="xs" c="dimmed" className="break">
                {detail}
              </Text>
            )}
            <Text size="xs" c="dimmed">
              {dateTime(at)}
            </Text>
          </Timeline.Item>
        ))}
      </Timeline>
    </Stack>
  );
}

function Facts({ session }: { session: Session }) {
  const facts: [string, ReactNode][] = [
    ["Id", <CopyButton key="id" value={session.id} label="Copy the session's id" shown />],
    ["Owner", session.owner.username],
    ["Template", <span key="t" className="mono break">{session.templateId}</span>],
    ["Cluster", session.clusterId ?? "not placed yet"],
    ["Resources", `${cpu(session.resources.cpu)}, ${memory(session.resources.memory)}`],
    ["Home", session.persistentHome ? "kept" : "not kept"],
    ["Created", dateTime(session.createdAt)],
    ["Last used", ago(session.lastActivityAt)],
    ["Hibernates when idle", session.idleTimeout ? `after ${duration(session.idleTimeout)}` : "never"],
    ...(session.maxDuration ? [["Ends at the latest", `after ${duration(session.maxDuration)}`] satisfies [string, ReactNode]] : []),
  ];
  return (
    <dl className="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
