import { Badge, Loader, Tooltip } from "@mantine/core";
import type { Session } from "../api/types";
import { reasonText, STATE_LOOKS } from "./state";

export function StateBadge({ session, size = "lg" }: { session: Session; size?: string }) {
  const look = STATE_LOOKS[session.state];
  const why = reasonText(session);
  return (
    <Tooltip label={why ? `${look.explanation} ${why}` : look.explanation} multiline maw={320}>
      <Badge
        color={look.color}
        size={size}
        data-testid="session-state"
        data-state={session.state}
        leftSection={look.busy ? <Loader size={10} color="currentColor" aria-hidden /> : <Dot />}
      >
        {look.label}
      </Badge>
    </Tooltip>
  );
}

function Dot() {
  return <span aria-hidden="true" style={{ display: "block", width: 7, height: 7, borderRadius: 9, background: "currentColor" }} />;
}
