import { useNavigate } from "react-router";
import type { Session } from "../api/types";
import { notifyError } from "../shell/notify";
import { openOwnOrigin } from "./open";
import { useConnect } from "./queries";

/** Opens a running session the way its template says: our viewer, or its own web client in a new tab. */
export function useOpenSession(): (session: Pick<Session, "id" | "protocol">) => Promise<void> {
  const navigate = useNavigate();
  const connect = useConnect();
  return async ({ id, protocol }) => {
    if (protocol !== "http") {
      await navigate(`/sessions/${id}/view`);
      return;
    }
    // The tab must be opened by the click itself; a browser blocks it after a wait.
    const target = `streamspace-${id}`;
    const tab = window.open("", target);
    try {
      openOwnOrigin(await connect(id, "control"), target);
      if (!tab) notifyError(new Error("The browser blocked the new tab. Allow pop-ups for this page and open the session again."));
    } catch (error) {
      tab?.close();
      notifyError(error);
    }
  };
}
