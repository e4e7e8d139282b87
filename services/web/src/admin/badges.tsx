/** A cluster's presence, and whether its agents are let in at all. */
import { Badge, Group, Tooltip, type MantineSize } from "@mantine/core";
import type { Cluster } from "../api/types";
import { PRESENCE, REVOKED } from "./presence";

export function Badges({ cluster, size }: { cluster: Cluster; size?: MantineSize }) {
  const presence = PRESENCE[cluster.presence];
  return (
    <Group gap={6}>
      {cluster.revokedAt && (
        <Tooltip label={REVOKED.explanation} multiline maw={280}>
          <Badge color={REVOKED.color} size={size} variant="filled" miw="max-content" data-testid="cluster-access">
            {REVOKED.text}
          </Badge>
        </Tooltip>
      )}
      <Tooltip label={presence.explanation} multiline maw={280}>
        <Badge color={cluster.revokedAt ? "gray" : presence.color} size={size} data-testid="cluster-presence">
          {presence.text}
        </Badge>
      </Tooltip>
    </Group>
  );
}
