import { Alert, Anchor, Badge, Button, Collapse, Group, Modal, Select, SimpleGrid, Stack, Switch, Text } from "@mantine/core";
import { useDisclosure, useMediaQuery } from "@mantine/hooks";
import { IconChevronDown, IconPlayerPlayFilled, IconServerOff } from "@tabler/icons-react";
import { useState } from "react";
import { Link, useNavigate } from "react-router";
import { useUser } from "../api/backend";
import type { NewSession, Template } from "../api/types";
import { cpu, label, memory, plural } from "../lib/format";
import { useLaunch, useSessions } from "../sessions/queries";
import { ErrorNote } from "../shell/states";
import { type Availability, mayLaunch } from "./availability";
import { TemplateTile } from "./icons";
import { choices, LaunchIntent } from "./intent";

const CPUS = ["500m", "1000m", "2000m", "4000m", "8000m"];
const MEMORIES = ["1Gi", "2Gi", "4Gi", "8Gi", "16Gi"];
const IDLE = [
  { value: "", label: "The server's default" },
  { value: "900", label: "15 minutes" },
  { value: "1800", label: "30 minutes" },
  { value: "3600", label: "1 hour" },
  { value: "14400", label: "4 hours" },
  { value: "86400", label: "1 day" },
];

interface LaunchDialogProps {
  template: Template | null;
  /** Null without a template. */
  availability: Availability | null;
  onClose: () => void;
}

export function LaunchDialog({ template, availability, onClose }: LaunchDialogProps) {
  const phone = useMediaQuery("(max-width: 30em)");
  return (
    <Modal opened={template !== null} onClose={onClose} withCloseButton={false} size={460} fullScreen={phone} aria-label="Launch">
      {template && <LaunchForm key={template.id} template={template} availability={availability ?? { kind: "ready" }} onClose={onClose} />}
    </Modal>
  );
}

function LaunchForm({ template, availability, onClose }: { template: Template; availability: Availability; onClose: () => void }) {
  const navigate = useNavigate();
  const launch = useLaunch();
  const [intent] = useState(() => new LaunchIntent());
  const [options, { toggle }] = useDisclosure(false);
  const defaults = template.defaultResources;
  const [chosenCpu, setCpu] = useState(defaults.cpu);
  const [chosenMemory, setMemory] = useState(defaults.memory);
  const [keepHome, setKeepHome] = useState(true);
  const [idle, setIdle] = useState("");

  const launchable = mayLaunch(availability);

  const start = () => {
    if (launch.isPending || !launchable) return;
    const changed = chosenCpu !== defaults.cpu || chosenMemory !== defaults.memory;
    const body: NewSession = {
      template: template.id,
      persistentHome: keepHome,
      ...(changed && { resources: { cpu: chosenCpu, memory: chosenMemory } }),
      ...(idle && { idleTimeout: Number(idle) }),
    };
    launch.mutate(
      { body, key: intent.keyFor(body) },
      {
        onSuccess: ({ session }) => {
          intent.fulfilled();
          void navigate(`/sessions/${session.id}`, { state: { launchedAt: Date.now() } });
        },
      },
    );
  };

  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        start();
      }}
    >
      <Stack>
        <Group wrap="nowrap" align="flex-start">
          <TemplateTile template={template} size={56} />
          <div>
            <Text fw={650} size="lg" lh={1.3}>
              {template.displayName}
            </Text>
            <Group gap={6} mt={4}>
              {template.categories.slice(0, 3).map((category) => (
                <Badge key={category} color="gray" size="sm">
                  {label(category)}
                </Badge>
              ))}
            </Group>
          </div>
        </Group>
        {template.description && (
          <Text size="sm" c="dimmed" className="break">
            {template.description}
          </Text>
        )}
        {availability.kind !== "ready" && <Hindrance availability={availability} />}
        {launchable && <AlreadyThere templateId={template.id} />}
        {launchable && (
          <div>
            <Button
              variant="subtle"
              color="gray"
              size="compact-sm"
              onClick={toggle}
              aria-expanded={options}
              rightSection={<IconChevronDown size={16} aria-hidden style={{ transform: options ? "rotate(180deg)" : undefined, transition: "transform 150ms" }} />}
            >
              Options
            </Button>
            <Text span size="sm" c="dimmed" ml="xs">
              {cpu(chosenCpu)}, {memory(chosenMemory)}, {keepHome ? "home kept" : "home not kept"}
            </Text>
            <Collapse expanded={options}>
              <Stack pt="sm" gap="sm">
                <SimpleGrid cols={2}>
                  <Select
                    label="Processors"
                    allowDeselect={false}
                    data={choices(CPUS, defaults.cpu, cpu)}
                    value={chosenCpu}
                    onChange={(value) => setCpu(value ?? defaults.cpu)}
                  />
                  <Select
                    label="Memory"
                    allowDeselect={false}
                    data={choices(MEMORIES, defaults.memory, memory)}
                    value={chosenMemory}
                    onChange={(value) => setMemory(value ?? defaults.memory)}
                  />
                </SimpleGrid>
                <Select label="Hibernate when nobody uses it for" allowDeselect={false} data={IDLE} value={idle} onChange={(value) => setIdle(value ?? "")} />
                <Switch
                  label="Keep my home"
                  description="Files in your home stay for your next sessions."
                  checked={keepHome}
                  onChange={(event) => setKeepHome(event.currentTarget.checked)}
                />
              </Stack>
            </Collapse>
          </div>
        )}
        {launch.isError && <ErrorNote error={launch.error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            {launchable ? "Cancel" : "Close"}
          </Button>
          {launchable && (
            <Button type="submit" loading={launch.isPending} leftSection={<IconPlayerPlayFilled size={16} aria-hidden />} data-testid="launch-confirm" data-autofocus>
              Launch
            </Button>
          )}
        </Group>
      </Stack>
    </form>
  );
}

function Hindrance({ availability: { kind, note } }: { availability: Exclude<Availability, { kind: "ready" }> }) {
  const admin = useUser().role === "admin";
  return (
    <Alert variant="light" color={kind === "waits" ? "blue" : "yellow"} p="sm" icon={<IconServerOff aria-hidden />} data-testid="launch-hindrance">
      <Text size="sm" className="break">
        {note}
        {kind === "needs-cluster" && (admin ? ", and none is connected. " : ", and none is connected. Ask an administrator to add one.")}
        {kind === "needs-cluster" && admin && (
          <Anchor component={Link} size="sm" fw={600} to="/admin/clusters">
            Add a cluster
          </Anchor>
        )}
      </Text>
    </Alert>
  );
}

/** A session of the same template may be what the person is really after. */
function AlreadyThere({ templateId }: { templateId: string }) {
  const { data } = useSessions({ includeFinal: false, everyone: false });
  const there = data?.items.filter((session) => session.templateId === templateId && session.state !== "terminating") ?? [];
  const [first] = there;
  if (!first) return null;
  return (
    <Alert variant="light" color="blue" p="sm">
      <Text size="sm">
        You already have {plural(there.length, "session")} of this.{" "}
        <Anchor component={Link} size="sm" fw={600} to={first.state === "running" && first.protocol === "vnc" ? `/sessions/${first.id}/view` : "/sessions"}>
          {first.state === "running" ? "Open it" : "Show it"}
        </Anchor>{" "}
        or launch another one.
      </Text>
    </Alert>
  );
}
