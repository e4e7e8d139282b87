/** A desktop in the full window. */
import { Button, Group, Loader, Stack, Text, Title } from "@mantine/core";
import { useEffect, useRef, useState, useSyncExternalStore } from "react";
import { Link, useParams } from "react-router";
import type { Session, ViewerRole } from "../api/types";
import { useConnect, useSession, useSessionActions } from "../sessions/queries";
import { launchAgainPath } from "../sessions/session-list";
import { useOpenSession } from "../sessions/use-open";
import { NotFoundPage } from "../shell/states";
import { useTitle } from "../shell/title";
import { mayReadUnasked, offerToComputer, readFromComputer } from "./clipboard-sync";
import { type Notice, noticeFor } from "./notice";
import { loadDisplay, saveDisplay } from "./preferences";
import { type Display, DesktopStream, type StreamState } from "./stream";
import { Toolbar } from "./toolbar";
import "./viewer.css";

export default function ViewerPage() {
  const { id = "" } = useParams();
  return <Viewer key={id} id={id} />;
}

const IDLE: StreamState = { status: "idle" };
const nothing = () => () => undefined;

function Viewer({ id }: { id: string }) {
  const session = useSession(id);
  const connect = useConnect();
  const screen = useRef<HTMLDivElement>(null);
  const [stream, setStream] = useState<DesktopStream | null>(null);
  const [role, setRole] = useState<ViewerRole>("control");
  const [display, setDisplay] = useState(loadDisplay);
  const [remoteClipboard, setRemoteClipboard] = useState("");
  const state = useSyncExternalStore(stream?.subscribe ?? nothing, stream?.getState ?? (() => IDLE));
  const protocol = session.data?.protocol;
  const sessionState = session.data?.state;
  useTitle(session.data?.templateDisplayName ?? "Desktop");

  const ports = useRef({ connect, display });
  useEffect(() => {
    ports.current = { connect, display };
  });

  useEffect(() => {
    const target = screen.current;
    if (protocol !== "vnc" || !target) return;
    const created = new DesktopStream(
      target,
      {
        connect: (wanted) => ports.current.connect(id, wanted),
        openSocket: (url, protocols) => new WebSocket(url, protocols),
        loadRfb: async () => (await import("@novnc/novnc")).default,
        onClipboard: (text) => {
          setRemoteClipboard(text);
          void offerToComputer(text);
        },
      },
      ports.current.display,
    );
    setStream(created);
    return () => {
      created.stop();
      setStream(null);
    };
  }, [id, protocol]);

  // Connects when the session runs, also after it was woken. `unknown` is worth a try: only
  // the cluster's reports are missing, the desktop may be well.
  useEffect(() => {
    if (stream && (sessionState === "running" || sessionState === "unknown")) stream.ensureStarted();
  }, [stream, sessionState]);

  const { refetch } = session;
  const stopped = state.status === "stopped";
  useEffect(() => {
    if (stopped) void refetch();
  }, [stopped, refetch]);

  useClipboardFromComputer(stream, state.status === "connected" && role === "control");
  useGoOnAtOnce(stream);

  const change = (next: Display) => {
    setDisplay(next);
    saveDisplay(next);
    stream?.show(next);
    stream?.rfb?.focus();
  };
  const changeRole = (next: ViewerRole) => {
    setRole(next);
    stream?.start(next);
  };

  if (session.isError && !session.data) {
    if ("status" in session.error && session.error.status === 404) return <NotFoundPage />;
  }
  if (protocol === "http" && session.data) return <OwnTab session={session.data} />;

  const notice = noticeFor(state, session.data);
  const shown = state.status === "connected" ? "connected" : state.status === "stopped" || (notice && !notice.busy) ? "disconnected" : "connecting";
  return (
    <div className="viewer">
      <Toolbar
        session={session.data}
        stream={stream}
        connected={state.status === "connected"}
        role={role}
        onRole={changeRole}
        display={display}
        onDisplay={change}
        remoteClipboard={remoteClipboard}
      />
      <div
        ref={screen}
        className="viewer-screen"
        data-testid="viewer-canvas"
        data-state={shown}
        role="application"
        aria-label={session.data ? `Desktop of ${session.data.templateDisplayName}` : "Desktop"}
      />
      {notice && stream?.lastFrame && <img src={stream.lastFrame} alt="" className="viewer-last-frame" />}
      {notice && <NoticePanel notice={notice} id={id} session={session.data} stream={stream} />}
    </div>
  );
}

function NoticePanel({ notice, id, session, stream }: { notice: Notice; id: string; session: Session | undefined; stream: DesktopStream | null }) {
  const { wake } = useSessionActions(id);
  const { title, message, busy, action } = notice;
  return (
    <div className="viewer-notice" role={busy ? "status" : "alertdialog"} aria-label={title}>
      <Stack align="center" gap="sm" ta="center">
        {busy && <Loader type="dots" color="white" aria-hidden />}
        <Title order={1} size="h3">
          {title}
        </Title>
        <Text className="break" opacity={0.8} data-testid={action ? "viewer-disconnect-reason" : undefined}>
          {message}
        </Text>
        <Group mt="xs" justify="center">
          {action === "wake" && (
            <Button loading={wake.isPending} onClick={() => wake.mutate()} data-testid="viewer-wake">
              Wake
            </Button>
          )}
          {action === "launch-again" && session && (
            <Button component={Link} to={launchAgainPath(session)}>
              Launch again
            </Button>
          )}
          {action === "reconnect" && <Button onClick={() => stream?.start()}>Connect again</Button>}
          {action === "try-now" && (
            <Button variant="white" onClick={() => stream?.hurry()}>
              Try now
            </Button>
          )}
          <Button component={Link} to="/sessions" variant="default">
            My sessions
          </Button>
        </Group>
      </Stack>
    </div>
  );
}

/** For a session with a web client of its own, reached by an old link to this page. */
function OwnTab({ session }: { session: Session }) {
  const open = useOpenSession();
  return (
    <div className="viewer">
      <div className="viewer-notice">
        <Stack align="center" gap="sm" ta="center">
          <Title order={1} size="h3">
            {session.templateDisplayName}
          </Title>
          <Text opacity={0.8}>This session has its own web page, which opens in a new tab.</Text>
          <Group mt="xs">
            <Button onClick={() => void open(session)} disabled={session.state !== "running"}>
              Open
            </Button>
            <Button component={Link} to="/sessions" variant="default">
              My sessions
            </Button>
          </Group>
        </Stack>
      </div>
    </div>
  );
}

/** Sends what this computer's clipboard holds when the window gets the focus. */
function useClipboardFromComputer(stream: DesktopStream | null, active: boolean): void {
  const sent = useRef<string | null>(null);
  useEffect(() => {
    if (!active) return;
    const send = async () => {
      if (!(await mayReadUnasked())) return;
      const text = await readFromComputer();
      if (text === null || text === sent.current) return;
      sent.current = text;
      stream?.rfb?.clipboardPasteFrom(text);
    };
    const focused = () => void send();
    window.addEventListener("focus", focused);
    focused();
    return () => window.removeEventListener("focus", focused);
  }, [stream, active]);
}

/** A network that is back, or a tab that is looked at again, is no time for waiting. */
function useGoOnAtOnce(stream: DesktopStream | null): void {
  useEffect(() => {
    const hurry = () => {
      if (document.visibilityState === "visible") stream?.hurry();
    };
    window.addEventListener("online", hurry);
    document.addEventListener("visibilitychange", hurry);
    return () => {
      window.removeEventListener("online", hurry);
      document.removeEventListener("visibilitychange", hurry);
    };
  }, [stream]);
}
