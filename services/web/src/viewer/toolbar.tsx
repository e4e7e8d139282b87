/** The viewer's tools, out of the way until wanted. */
import { ActionIcon, Button, Group, Menu, Popover, Stack, Text, Textarea, Tooltip } from "@mantine/core";
import { useFullscreenDocument, useMediaQuery } from "@mantine/hooks";
import {
  IconAdjustments, IconArrowLeft, IconArrowsMaximize, IconArrowsMinimize, IconCamera, IconCheck, IconChevronDown, IconClipboard, IconEye,
  IconEyeOff, IconKeyboard, IconPin, IconPinFilled,
} from "@tabler/icons-react";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { useNavigate } from "react-router";
import type { Session, ViewerRole } from "../api/types";
import { copyText, download } from "../lib/clipboard";
import { notifyDone, notifyError } from "../shell/notify";
import { canRead, MAX_PASTE, readFromComputer } from "./clipboard-sync";
import type { DesktopStream, Display } from "./stream";
import { FILLER, sendTyped } from "./touch-keyboard";

const HIDE_AFTER_MS = 2_500;

interface ToolbarProps {
  session: Session | undefined;
  stream: DesktopStream | null;
  connected: boolean;
  role: ViewerRole;
  onRole: (role: ViewerRole) => void;
  display: Display;
  onDisplay: (display: Display) => void;
  remoteClipboard: string;
}

export function Toolbar({ session, stream, connected, role, onRole, display, onDisplay, remoteClipboard }: ToolbarProps) {
  const navigate = useNavigate();
  const [pinned, setPinned] = useState(false);
  const [panel, setPanel] = useState<"clipboard" | "display" | null>(null);
  const { shown, show, leave, bar } = useAutoHide(connected && !pinned && panel === null);
  const { fullscreen, toggle } = useFullscreenDocument();
  const touch = useMediaQuery("(pointer: coarse)");
  const backToDesktop = () => stream?.rfb?.focus();

  const close = () => {
    setPanel(null);
    backToDesktop();
  };
  const screenshot = () =>
    stream?.rfb?.toBlob((blob) => {
      if (blob) download(`${session?.id ?? "desktop"}-${new Date().toISOString().replace(/[:.]/g, "-")}.png`, blob);
    }, "image/png");
  const toggleFullscreen = async () => {
    const entering = !fullscreen;
    await toggle();
    if (entering) await lockKeyboard();
    backToDesktop();
  };

  return (
    <div className="toolbar-zone" data-shown={shown} onPointerEnter={show} onPointerLeave={leave}>
      <div className="toolbar" role="toolbar" aria-label="Viewer" ref={bar}>
        <Tool label="Back to my sessions" onClick={() => void navigate("/sessions")}>
          <IconArrowLeft size={20} aria-hidden />
        </Tool>
        <span className="toolbar-name">{session?.templateDisplayName}</span>
        <span className="toolbar-divider" />
        <Popover opened={panel === "clipboard"} onChange={(opened) => !opened && close()} trapFocus returnFocus={false} width={320} shadow="lg">
          <Popover.Target>
            <span>
              <Tool label="Clipboard" testId="viewer-clipboard" disabled={!connected} pressed={panel === "clipboard"} onClick={() => setPanel(panel === "clipboard" ? null : "clipboard")}>
                <IconClipboard size={20} aria-hidden />
              </Tool>
            </span>
          </Popover.Target>
          <Popover.Dropdown>
            <ClipboardPanel remote={remoteClipboard} viewOnly={role === "view"} onSend={(text) => stream?.rfb?.clipboardPasteFrom(text)} onDone={close} />
          </Popover.Dropdown>
        </Popover>
        <Menu opened={panel === "display"} onChange={(opened) => (opened ? setPanel("display") : close())} returnFocus={false} width={240}>
          <Menu.Target>
            <span>
              <Tool label="Picture" pressed={panel === "display"} onClick={() => setPanel("display")}>
                <IconAdjustments size={20} aria-hidden />
              </Tool>
            </span>
          </Menu.Target>
          <Menu.Dropdown>
            <DisplayMenu display={display} onDisplay={onDisplay} viewOnly={role === "view"} />
          </Menu.Dropdown>
        </Menu>
        <Tool label={fullscreen ? "Leave full screen" : "Full screen"} onClick={() => void toggleFullscreen()}>
          {fullscreen ? <IconArrowsMinimize size={20} aria-hidden /> : <IconArrowsMaximize size={20} aria-hidden />}
        </Tool>
        {touch && connected && role === "control" && <TouchKeyboard stream={stream} />}
        <Tool
          label={role === "view" ? "Take control" : "Only watch"}
          pressed={role === "view"}
          onClick={() => onRole(role === "view" ? "control" : "view")}
          testId="viewer-view-only"
        >
          {role === "view" ? <IconEye size={20} aria-hidden /> : <IconEyeOff size={20} aria-hidden />}
        </Tool>
        <Tool label="Save a picture of the desktop" disabled={!connected} onClick={screenshot}>
          <IconCamera size={20} aria-hidden />
        </Tool>
        <Tooltip label="Send Ctrl+Alt+Del">
          <Button
            size="compact-sm"
            variant="subtle"
            color="gray"
            c="white"
            style={{ flex: "none" }}
            disabled={!connected || role === "view"}
            onClick={() => {
              stream?.rfb?.sendCtrlAltDel();
              backToDesktop();
            }}
          >
            Ctrl Alt Del
          </Button>
        </Tooltip>
        <span className="toolbar-divider" />
        <Tool label={pinned ? "Let the toolbar hide" : "Keep the toolbar shown"} pressed={pinned} onClick={() => setPinned(!pinned)}>
          {pinned ? <IconPinFilled size={18} aria-hidden /> : <IconPin size={18} aria-hidden />}
        </Tool>
      </div>
      <button type="button" className="toolbar-handle" onClick={show} aria-label="Show the toolbar (Ctrl+Alt+Shift)">
        <IconChevronDown size={16} aria-hidden />
      </button>
    </div>
  );
}

interface ToolProps {
  label: string;
  children: ReactNode;
  onClick?: () => void;
  disabled?: boolean;
  pressed?: boolean;
  testId?: string;
}

function Tool({ label, children, pressed, testId, ...rest }: ToolProps) {
  return (
    <Tooltip label={label}>
      <ActionIcon
        size="lg"
        variant={pressed ? "filled" : "subtle"}
        color={pressed ? "brand" : "gray"}
        c="white"
        aria-label={label}
        aria-pressed={pressed}
        data-testid={testId}
        {...rest}
      >
        {children}
      </ActionIcon>
    </Tooltip>
  );
}

function DisplayMenu({ display, onDisplay, viewOnly }: { display: Display; onDisplay: (display: Display) => void; viewOnly: boolean }) {
  const mark = (chosen: boolean) => (chosen ? <IconCheck size={16} aria-label="chosen" /> : null);
  const fits = [
    { value: "resize", text: "Resize the desktop to the window" },
    { value: "scale", text: "Scale the picture to the window" },
  ] as const;
  const qualities = [
    { value: "sharp", text: "Sharp, for fast networks" },
    { value: "balanced", text: "Balanced" },
    { value: "fast", text: "Fast, for slow networks" },
  ] as const;
  return (
    <>
      <Menu.Label>Size</Menu.Label>
      {fits.map(({ value, text }) => (
        <Menu.Item key={value} disabled={viewOnly && value === "resize"} rightSection={mark(display.fit === value)} onClick={() => onDisplay({ ...display, fit: value })}>
          {text}
        </Menu.Item>
      ))}
      <Menu.Divider />
      <Menu.Label>Quality</Menu.Label>
      {qualities.map(({ value, text }) => (
        <Menu.Item key={value} rightSection={mark(display.quality === value)} onClick={() => onDisplay({ ...display, quality: value })}>
          {text}
        </Menu.Item>
      ))}
    </>
  );
}

function ClipboardPanel({ remote, viewOnly, onSend, onDone }: { remote: string; viewOnly: boolean; onSend: (text: string) => void; onDone: () => void }) {
  const [text, setText] = useState(remote);
  const tooLong = new Blob([text]).size > MAX_PASTE;
  const send = (value: string) => {
    onSend(value);
    notifyDone("Sent. Paste it in the desktop.");
    onDone();
  };
  const fromComputer = async () => {
    const read = await readFromComputer();
    if (read === null) notifyError(new Error("The browser does not let this page read the clipboard. Paste into the field instead."));
    else send(read);
  };
  return (
    <Stack gap="sm">
      <Text size="sm" fw={600}>
        Clipboard
      </Text>
      <Textarea
        aria-label="Text to exchange with the desktop"
        description="What the desktop copied appears here; what you paste here can be sent to it."
        data-autofocus
        data-testid="viewer-clipboard-text"
        autosize
        minRows={4}
        maxRows={10}
        value={text}
        onChange={(event) => setText(event.currentTarget.value)}
        error={tooLong ? "Too long: the desktop takes at most 256 KiB." : null}
      />
      <Group gap="xs" grow>
        <Button size="xs" variant="default" disabled={text === ""} onClick={() => void copyText(text).then((copied) => copied && notifyDone("Copied to this computer."))}>
          Copy
        </Button>
        <Button size="xs" disabled={viewOnly || text === "" || tooLong} onClick={() => send(text)}>
          Send to desktop
        </Button>
      </Group>
      {canRead() && !viewOnly && (
        <Button size="xs" variant="light" onClick={() => void fromComputer()}>
          Send this computer’s clipboard
        </Button>
      )}
    </Stack>
  );
}

function TouchKeyboard({ stream }: { stream: DesktopStream | null }) {
  const field = useRef<HTMLTextAreaElement>(null);
  return (
    <>
      <Tool label="Keyboard" onClick={() => field.current?.focus()}>
        <IconKeyboard size={20} aria-hidden />
      </Tool>
      <textarea
        ref={field}
        className="touch-keys"
        aria-label="Keys for the desktop"
        tabIndex={-1}
        autoCapitalize="off"
        autoComplete="off"
        autoCorrect="off"
        spellCheck={false}
        defaultValue={FILLER}
        onInput={(event) => {
          const { rfb } = stream ?? {};
          if (rfb) sendTyped(rfb, event.currentTarget.value);
          event.currentTarget.value = FILLER;
          event.currentTarget.setSelectionRange(FILLER.length, FILLER.length);
        }}
      />
    </>
  );
}

/** Shows the toolbar at the start, near the top edge and on Ctrl+Alt+Shift; hides it after a while. */
function useAutoHide(mayHide: boolean) {
  const [wanted, setWanted] = useState(true);
  const [near, setNear] = useState(false);
  const bar = useRef<HTMLDivElement>(null);
  const shown = !mayHide || wanted || near;

  useEffect(() => {
    if (!wanted || !mayHide || near) return;
    const timer = setTimeout(() => {
      if (!bar.current?.contains(document.activeElement)) setWanted(false);
    }, HIDE_AFTER_MS);
    return () => clearTimeout(timer);
  }, [wanted, mayHide, near]);

  useEffect(() => {
    const moved = (event: PointerEvent) => {
      if (event.pointerType === "mouse" && event.clientY <= 4) setWanted(true);
    };
    const pressed = (event: KeyboardEvent) => {
      if (!(event.ctrlKey && event.altKey && event.shiftKey) || event.repeat) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      setWanted(true);
      // A hidden button takes no focus: wait until the bar has begun to show.
      setTimeout(() => bar.current?.querySelector("button")?.focus(), 60);
    };
    const left = (event: FocusEvent) => {
      const inside = (target: EventTarget | null) => target instanceof Node && bar.current?.contains(target);
      if (inside(event.target) && !inside(event.relatedTarget)) setWanted(false);
    };
    window.addEventListener("pointermove", moved, true);
    window.addEventListener("keydown", pressed, true);
    document.addEventListener("focusout", left);
    return () => {
      window.removeEventListener("pointermove", moved, true);
      window.removeEventListener("keydown", pressed, true);
      document.removeEventListener("focusout", left);
    };
  }, []);

  return {
    shown,
    bar,
    show: () => {
      setNear(true);
      setWanted(true);
    },
    leave: () => setNear(false),
  };
}

interface LockableKeyboard {
  lock?: () => Promise<void>;
}

/** In full screen, keys such as Alt+Tab belong to the desktop where the browser can do that. */
async function lockKeyboard(): Promise<void> {
  try {
    await (navigator as Navigator & { keyboard?: LockableKeyboard }).keyboard?.lock?.();
  } catch {
    // Not granted: full screen works without.
  }
}
