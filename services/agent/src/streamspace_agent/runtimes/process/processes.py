"""Starting processes, knowing them again, hearing of their end, and ending them all.

A process id alone names nothing for long: ids are used again. A process is known by its
id together with the moment it started (and the boot that was in), and is held by a pidfd
from then on, so that a signal can never hit a stranger. The same pidfd tells of the end
of a process that is not our child, which is what a restarted agent needs.

A session's processes are found by a mark in their environment, by the sessions and
groups of the processes started for it, and by descent; a program may escape one of
these (a daemon leaves its group, a sandbox hides its environment), hardly all.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamspace_agent.ports import PassingFailure

_PROC = Path("/proc")
_LOOK_EVERY = 0.01
_KILL_ROUNDS = 40
"""Times half a second or less; what survives SIGKILL that long hangs in the kernel."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process of this boot; `started` is in clock ticks since boot."""

    pid: int
    started: int


@dataclass(frozen=True)
class ProcessEntry:
    """One line of the process table."""

    identity: ProcessIdentity
    parent: int
    group: int
    session: int
    marked: bool = False


def boot_id() -> str:
    """Names this boot of the machine; start times mean nothing in another one."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> ProcessIdentity | None:
    """The living process with this id, None when there is none (a zombie is none)."""
    entry = _read_entry(pid)
    return entry.identity if entry else None


def is_alive(identity: ProcessIdentity) -> bool:
    return identify(identity.pid) == identity


def _read_entry(pid: int, marks: Iterable[bytes] = ()) -> ProcessEntry | None:
    try:
        line = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name may hold blanks and parentheses; what follows it does not.
    fields = line[line.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return ProcessEntry(
        ProcessIdentity(pid, int(fields[19])),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        marked=_is_marked(pid, marks),
    )


def _is_marked(pid: int, marks: Iterable[bytes]) -> bool:
    wanted = set(marks)
    if not wanted:
        return False
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return wanted <= set(environment.split(b"\0"))


def process_table(marks: Iterable[bytes]) -> list[ProcessEntry]:
    """All living processes of this user; those with every mark in their environment marked."""
    marks = tuple(marks)
    own = os.getuid()
    table = []
    for path in _PROC.iterdir():
        if not path.name.isdecimal():
            continue
        try:
            if path.stat().st_uid != own:
                continue
        except FileNotFoundError:
            continue
        entry = _read_entry(int(path.name), marks)
        if entry is not None:
            table.append(entry)
    return table


def family(table: Sequence[ProcessEntry], roots: Iterable[ProcessIdentity]) -> set[ProcessIdentity]:
    """Every process that belongs to the marked ones and the living `roots`.

    A root that is gone still counts by its session: an id is not given to a new process
    while a session or group of that number has members.
    """
    roots = set(roots)
    taken_again = {entry.identity.pid for entry in table} - {
        entry.identity.pid for entry in table if entry.identity in roots
    }
    leaders = {root.pid for root in roots} - taken_again
    members = {
        entry.identity
        for entry in table
        if entry.marked or entry.identity in roots or {entry.session, entry.group} & leaders
    }
    while True:
        pids = {member.pid for member in members}
        children = {e.identity for e in table if e.parent in pids} - members
        if not children:
            return members
        members |= children


def send_signal(identity: ProcessIdentity, number: signal.Signals) -> None:
    """Signal exactly this process; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(identity.pid)
        try:
            # The handle is on whoever has the id now: compare before shooting.
            if is_alive(identity):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


async def end_family(find: Callable[[], set[ProcessIdentity]], *, grace: float) -> None:
    """SIGTERM to all that `find` finds, SIGKILL after `grace` seconds, until none is left.

    Raises:
        PassingFailure: some do not die.
    """
    asked = await asyncio.to_thread(find)
    for member in asked:
        send_signal(member, signal.SIGTERM)
        # A stopped process would not hear of it.
        send_signal(member, signal.SIGCONT)
    await _wait_gone(asked, grace)
    for attempt in range(_KILL_ROUNDS):
        left = await asyncio.to_thread(find)
        if not left:
            return
        for member in left:
            send_signal(member, signal.SIGKILL)
        await _wait_gone(left, min(0.02 * (attempt + 1), 0.5))
    pids = ", ".join(str(member.pid) for member in sorted(left, key=lambda m: m.pid))
    raise PassingFailure(f"processes that do not die: {pids}")


async def _wait_gone(members: Iterable[ProcessIdentity], timeout: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    left = set(members)
    while left and loop.time() < deadline:
        await asyncio.sleep(_LOOK_EVERY)
        left = {member for member in left if is_alive(member)}


class WatchedProcess:
    """A process held by its pidfd, child or not; `exited` is set when it is gone."""

    def __init__(self, identity: ProcessIdentity, handle: int) -> None:
        self.identity = identity
        self.exited = asyncio.Event()
        self.exit_code: int | None = None
        """As the shell has it, negative for a signal; None for a stranger's child."""
        self._handle: int | None = handle
        asyncio.get_running_loop().add_reader(handle, self._on_exit)

    @classmethod
    def adopt(cls, identity: ProcessIdentity) -> "WatchedProcess | None":
        """Watch a process started by an earlier agent; None when it is gone."""
        try:
            handle = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        if not is_alive(identity):
            os.close(handle)
            return None
        return cls(identity, handle)

    def release(self) -> None:
        """Stop watching; the process is left as it is."""
        if self._handle is not None:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = None

    def _on_exit(self) -> None:
        if self._handle is None:
            return
        try:
            result = os.waitid(os.P_PIDFD, self._handle, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            result = None
        if result is not None:
            killed = result.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
            self.exit_code = -result.si_status if killed else result.si_status
        self.release()
        self.exited.set()


async def spawn(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    log: Path,
    pass_fds: Sequence[int] = (),
) -> WatchedProcess:
    """Start a program in a session and group of its own, its output going to `log`.

    Raises:
        OSError: it cannot be started.
    """
    # asyncio's own subprocesses are killed when their event loop ends; ours must not be.
    # Starting one takes a millisecond or two, spent beside the event loop.
    starting = asyncio.ensure_future(
        asyncio.to_thread(_start, list(argv), dict(environment), cwd, log, tuple(pass_fds))
    )
    try:
        pid = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # A thread cannot be called back: wait for what it starts, so that whoever cleans
        # up after us finds it, and watch it, so that it is no zombie when it has ended.
        with contextlib.suppress(OSError):
            _watch_child(await starting)
        raise
    return _watch_child(pid)


def _watch_child(pid: int) -> WatchedProcess:
    return WatchedProcess(identify(pid) or ProcessIdentity(pid, 0), os.pidfd_open(pid))


def _start(
    argv: list[str], environment: dict[str, str], cwd: Path, log: Path, pass_fds: tuple[int, ...]
) -> int:
    # Appending, so that a log that grew too long can be cut while it is written.
    with log.open("ab") as output:
        started = subprocess.Popen(
            argv,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=pass_fds,
            umask=0o077,
        )
    # From here on the pidfd knows of its end; the object would only complain of a child
    # that outlives it.
    started.returncode = 0
    return started.pid
