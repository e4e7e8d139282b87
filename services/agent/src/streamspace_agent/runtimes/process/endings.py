"""The end of a session's processes: told in words, and brought about without a trace."""

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from streamspace_agent.runtimes.process import desktop, environment
from streamspace_agent.runtimes.process.paths import Layout
from streamspace_agent.runtimes.process.processes import (
    ProcessIdentity,
    boot_id,
    end_family,
    family,
    identify,
    process_table,
)
from streamspace_agent.runtimes.process.records import SessionRecord
from streamspace_common.contracts.ids import SessionId

_TAIL_BYTES = 2000
_TAIL_LINES = 4
_LOG_LIMIT = 4 * 1024 * 1024
_LOG_KEPT = 256 * 1024
_LOCKS = Path("/tmp")  # noqa: S108 - where X servers keep their locks
_NAMES = {
    desktop.DISPLAY: "The display server",
    desktop.WINDOW_MANAGER: "The window manager",
    desktop.PANEL: "The panel",
    desktop.APPLICATION: "The application",
}


def tell(role: str, exit_code: int | None, log: Path) -> str:
    """What ended, how, and its last words: a sentence for the session's owner."""
    text = f"{_NAMES.get(role, role)} {_how(exit_code)}."
    words = last_words(log)
    return f"{text} Its last words: {words}" if words else text


def _how(exit_code: int | None) -> str:
    match exit_code:
        case None:
            return "ended"
        case 0:
            return "was closed"
        case code if code < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-code).name}"
            return f"was killed by signal {-code}"
        case code:
            return f"failed with exit code {code}"


def last_words(log: Path) -> str:
    """The last few lines of a log, joined; empty when there are none."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(stream.tell() - _TAIL_BYTES, 0))
            tail = stream.read()
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in tail.decode(errors="replace").splitlines()]
    return " | ".join([line for line in lines if line][-_TAIL_LINES:])


class Undertaker:
    """Ends whatever runs of a session, and removes what is not its home."""

    def __init__(self, layout: Layout, *, grace: float) -> None:
        self._layout = layout
        self._grace = grace

    async def bury(self, session: SessionId, record: SessionRecord | None) -> None:
        """Leave no process, no socket and no directory but home; call under the lock.

        Raises:
            PassingFailure: processes do not die.
            OSError: files cannot be removed.
        """
        known = record.processes if record and record.boot_id == boot_id() else ()
        roots = [process.identity for process in known]
        displays = [p.identity for p in known if p.role == desktop.DISPLAY]
        marks = environment.marks(session, self._layout.installation)
        seen: set[ProcessIdentity] = set(roots)

        def everything() -> set[ProcessIdentity]:
            found = family(process_table(marks), roots)
            seen.update(found)
            return found

        def all_but_the_display() -> set[ProcessIdentity]:
            return everything().difference(displays)

        # Programs may want to say goodbye to a display that still answers.
        if displays:
            await end_family(all_but_the_display, grace=self._grace)
        await end_family(everything, grace=self._grace)
        _release_displays(member.pid for member in seen)
        self._layout.session(session).remove()


def _release_displays(pids: Iterable[int]) -> None:
    """Remove what X servers that were killed had no time to remove."""
    dead = set(pids)
    for lock in _LOCKS.glob(".X*-lock"):
        with contextlib.suppress(OSError, ValueError):
            holder = int(lock.read_text())
            if holder in dead and identify(holder) is None:
                number = lock.name.removeprefix(".X").removesuffix("-lock")
                (_LOCKS / ".X11-unix" / f"X{number}").unlink(missing_ok=True)
                lock.unlink()


def cut_long_log(path: Path) -> None:
    """Keep only the end of a log that grew past its limit; its writers append to it."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size <= _LOG_LIMIT:
            return
        with path.open("r+b") as stream:
            stream.seek(-_LOG_KEPT, os.SEEK_END)
            kept = stream.read()
            stream.seek(0)
            stream.write(kept)
            stream.truncate()
