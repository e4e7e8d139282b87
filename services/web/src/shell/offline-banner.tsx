import { Loader, Text } from "@mantine/core";
import { useNetwork } from "@mantine/hooks";
import { useLive } from "../sessions/live";

/** Says that what is shown may be old, and that the page is working on it. */
export function OfflineBanner() {
  const { connected } = useLive();
  const { online } = useNetwork();
  if (connected && online) return null;
  return (
    <div className="offline" role="status" data-testid="offline-banner">
      <Loader size={14} color="currentColor" aria-hidden />
      <Text size="sm" fw={550} inherit>
        {online
          ? "StreamSpace cannot be reached right now. What you see may be out of date; reconnecting…"
          : "You are offline. This page goes on by itself when the network is back."}
      </Text>
    </div>
  );
}
