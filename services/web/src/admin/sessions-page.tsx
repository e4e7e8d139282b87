import { IconAppWindow } from "@tabler/icons-react";
import { SessionsView } from "../sessions/sessions-page";
import { EmptyState } from "../shell/states";
import { useTitle } from "../shell/title";

export default function EverySessionPage() {
  useTitle("All sessions");
  return (
    <SessionsView
      title="All sessions"
      everyone
      empty={
        <EmptyState icon={<IconAppWindow size={32} />} title="Nobody has a session">
          Sessions of all users appear here while they live.
        </EmptyState>
      }
    />
  );
}
