/** A start as it happens: its phases with their times, then the viewer by itself. */
import { Alert, Button, Card, Group, Loader, Skeleton, Stack, Text, Title } from "@mantine/core";
import { IconAlertCircle, IconArrowLeft, IconCheck, IconExternalLink, IconMinus, IconMoon, IconPlayerPlay, IconX } from "@tabler/icons-react";
import { useEffect, useState } from "react";
import { Link, useLocation, useNavigate, useParams } from "react-router";
import type { Session } from "../api/types";
import { SessionTile } from "../catalog/icons";
import { elapsed } from "../lib/format";
import { ErrorNote, NotFoundPage } from "../shell/states";
import { useTitle } from "../shell/title";
import { useSessionEvents } from "./live";
import { useSession, useSessionActions } from "./queries";
import { launchAgainPath } from "./session-list";
import { isFinal, nextStep, PHASE_LABELS, reasonText, startSteps, STATE_LOOKS, type Step } from "./state";
import { StateBadge } from "./state-badge";
import { useOpenSession } from "./use-open";

/** Long enough to see that it is ready, short enough not to wait. */
const OPEN_AFTER_MS = 350;

export function ProgressPage() {
  const { id = "" } = useParams();
  const session = useSession(id);
  const refused = useSessionEvents(id);
  useTitle(session.data?.templateDisplayName ?? "Session");
  if (session.isError && !session.data) {
    if (refused?.status === 404) return <NotFoundPage />;
    return <ErrorNote error={session.error} onRetry={() => void session.refetch()} retrying={session.isFetching} />;
  }
  if (!session.data) return <Skeleton height={360} maw={640} mx="auto" radius="lg" />;
  return <Progress key={id} session={session.data} />;
}

function Progress({ session }: { session: Session }) {
  const navigate = useNavigate();
  const location = useLocation();
  const launchedAt = (location.state as { launchedAt?: number } | null)?.launchedAt ?? null;
  // Opens by itself what was launched here or seen starting; not what was running all along.
  const [watched, setWatched] = useState(launchedAt !== null);
  if (!watched && STATE_LOOKS[session.state].busy && session.desired === "running") setWatched(true);
  const opens = watched && session.state === "running" && session.protocol === "vnc";

  useEffect(() => {
    if (!opens) return;
    const timer = setTimeout(() => void navigate(`/sessions/${session.id}/view`, { replace: true }), OPEN_AFTER_MS);
    return () => clearTimeout(timer);
  }, [opens, navigate, session.id]);

  return (
    <Card maw={640} mx="auto" p={{ base: "lg", sm: "xl" }} data-testid="launch-progress" data-state={session.state}>
      <Group wrap="nowrap" mb="xl">
        <SessionTile session={session} size={56} />
        <div style={{ flex: 1, minWidth: 0 }}>
          <Title order={1} size="h3" lineClamp={2}>
            {session.templateDisplayName}
          </Title>
          <Text size="xs" c="dimmed" className="mono" truncate>
            {session.id}
          </Text>
        </div>
        <StateBadge session={session} />
      </Group>
      <Summary session={session} since={launchedAt} />
      <Steps session={session} />
      <Outcome session={session} />
    </Card>
  );
}

function Summary({ session, since }: { session: Session; since: number | null }) {
  const now = useTicking(STATE_LOOKS[session.state].busy);
  const ready = session.phases.find(({ phase }) => phase === "ready");
  const why = reasonText(session);
  let text: string;
  if (session.state === "running") text = ready ? `Ready in ${elapsed(ready.elapsedMs)}.` : "Ready.";
  else if (session.state === "pending") text = why ?? (session.clusterId ? "Waiting for its cluster to take it…" : "No cluster that can run it is online right now. It starts by itself when one returns.");
  else if (session.state === "starting" || session.state === "waking") text = "Getting it ready for you…";
  else text = STATE_LOOKS[session.state].explanation;
  return (
    <Group justify="space-between" mb="lg" aria-live="polite">
      <Text c="dimmed">{text}</Text>
      {since !== null && STATE_LOOKS[session.state].busy && (
        <Text c="dimmed" className="mono" aria-hidden>
          {elapsed(Math.max(0, now - since))}
        </Text>
      )}
    </Group>
  );
}

function Steps({ session }: { session: Session }) {
  const steps = startSteps(session);
  return (
    <ol className="steps" aria-label="Progress">
      {steps.map((step) => (
        <li key={step.phase} className="step" data-testid={`phase-${step.phase}`} data-state={step.status}>
          <span className="step-mark" aria-hidden="true">
            <Mark step={step} />
          </span>
          <div className="step-text">
            <Text fw={600} lh="28px">
              {PHASE_LABELS[step.phase].title}
            </Text>
            <Text size="sm" c="dimmed">
              {step.timing?.message ?? (step.status === "skipped" ? "Not needed" : PHASE_LABELS[step.phase].explanation)}
            </Text>
          </div>
          <Text size="sm" c="dimmed" className="mono" lh="28px">
            {step.timing && step.status === "done" ? elapsed(step.timing.elapsedMs) : ""}
          </Text>
        </li>
      ))}
    </ol>
  );
}

function Mark({ step }: { step: Step }) {
  switch (step.status) {
    case "done":
      return <IconCheck size={16} stroke={3} />;
    case "failed":
      return <IconX size={16} stroke={3} />;
    case "active":
      return <Loader size={14} />;
    case "skipped":
      return <IconMinus size={14} />;
    case "pending":
      return null;
  }
}

function Outcome({ session }: { session: Session }) {
  const open = useOpenSession();
  const { wake, remove } = useSessionActions(session.id);
  const back = (
    <Button component={Link} to="/sessions" variant="default" leftSection={<IconArrowLeft size={16} aria-hidden />}>
      My sessions
    </Button>
  );
  if (session.state === "running") {
    const own = session.protocol === "http";
    const Icon = own ? IconExternalLink : IconPlayerPlay;
    return (
      <Group mt="md">
        <Button size="md" leftSection={<Icon size={18} aria-hidden />} onClick={() => void open(session)} data-testid="session-open">
          {own ? "Open in a new tab" : "Open"}
        </Button>
        {back}
      </Group>
    );
  }
  if (isFinal(session.state)) {
    const failed = session.state === "failed";
    return (
      <Stack mt="md">
        {failed && (
          <Alert color="red" variant="light" icon={<IconAlertCircle aria-hidden />} title="It could not be started" role="alert">
            <Text size="sm" className="break">
              {reasonText(session) ?? "The cluster gave no reason."}
            </Text>
            {nextStep(session) && (
              <Text size="sm" mt={6}>
                {nextStep(session)}
              </Text>
            )}
          </Alert>
        )}
        <Group>
          <Button component={Link} to={launchAgainPath(session)}>
            Launch again
          </Button>
          {back}
        </Group>
      </Stack>
    );
  }
  if (session.state === "hibernated") {
    return (
      <Group mt="md">
        <Button leftSection={<IconMoon size={16} aria-hidden />} loading={wake.isPending} onClick={() => wake.mutate()}>
          Wake
        </Button>
        {back}
      </Group>
    );
  }
  return (
    <Group mt="md" justify="space-between">
      <Text size="sm" c="dimmed">
        You can leave this page; it goes on without you.
      </Text>
      <Group gap="xs">
        {session.desired === "running" && (
          <Button variant="subtle" color="gray" loading={remove.isPending} onClick={() => remove.mutate(false)}>
            Cancel
          </Button>
        )}
        {back}
      </Group>
    </Group>
  );
}

/** The time, ten times a second while `active`. */
function useTicking(active: boolean): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (!active) return;
    const timer = setInterval(() => setNow(Date.now()), 100);
    return () => clearInterval(timer);
  }, [active]);
  return now;
}
