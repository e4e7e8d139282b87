"""The running sessions this agent watches over, however they were started.

Each has one task that waits for the first of its vital processes to end. Sessions
started by another agent (an earlier one, or a neighbour that shares the state directory)
are found by their records.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from streamspace_agent.runtimes.process.launch import Started, wait_vital_end
from streamspace_agent.runtimes.process.processes import WatchedProcess, boot_id, is_alive
from streamspace_agent.runtimes.process.records import Records, SessionRecord
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_STAMP_RESOLUTION = 2_000_000_000
"""Nanoseconds: two changes closer together than a file system tells apart must not hide."""


@dataclass
class Held:
    """One running session and the processes it is watched by."""

    record: SessionRecord
    started: Sequence[Started]
    missing: str | None
    """The role of a vital process that was gone before we came."""
    watch: asyncio.Task[None] | None = None
    ended: bool = False
    """Its end was noticed: what follows from that must not be cut short."""


OnEnd = Callable[[Held, str, int | None], Awaitable[None]]
"""Called with the role and exit code of the first vital process that ended."""


class Custody:
    """Watches over every running session there is a record of."""

    def __init__(self, records: Records, on_end: OnEnd) -> None:
        self._records = records
        self._on_end = on_end
        self._held: dict[SessionId, Held] = {}
        self._letting_go: set[asyncio.Task[None]] = set()
        self._boot_id = boot_id()
        self._stamp = 0

    def is_alive(self, record: SessionRecord) -> bool:
        """Whether the record is of a desktop whose vital processes all run."""
        if record.state is not ResourceState.RUNNING or record.suspended:
            return False
        return record.boot_id == self._boot_id and all(
            is_alive(process.identity) for process in record.processes if process.vital
        )

    def take(self, record: SessionRecord, started: Iterable[Started]) -> None:
        """Watch over a session we have just started."""
        self._hold(Held(record, tuple(started), None))

    def look(self) -> None:
        """Make what is held agree with the records; cheap while none has changed."""
        stamp = self._records.stamp()
        if stamp == self._stamp and time.time_ns() - stamp > _STAMP_RESOLUTION:
            return
        self._stamp = stamp
        running = {
            record.session_id: record
            for record in self._records.all()
            if record.state is ResourceState.RUNNING and not record.suspended
        }
        for session, held in list(self._held.items()):
            current = running.get(session)
            if current is None or current.incarnation != held.record.incarnation:
                self._let_go(self._held.pop(session))
        for session in running.keys() - self._held.keys():
            self._adopt(running[session])

    async def release_all(self) -> list[SessionId]:
        """Stop watching, leaving the processes as they are; returns what was held."""
        sessions = list(self._held)
        for held in self._held.values():
            self._let_go(held)
            for each in held.started:
                each.process.release()
        self._held.clear()
        await asyncio.gather(*self._letting_go, return_exceptions=True)
        return sessions

    def _adopt(self, record: SessionRecord) -> None:
        found: list[Started] = []
        missing = None
        for known in record.processes:
            process = None
            if record.boot_id == self._boot_id:
                process = WatchedProcess.adopt(known.identity)
            if process is not None:
                found.append(Started(known.role, known.vital, process))
            elif known.vital and missing is None:
                missing = known.role
        log.info("adopted", session=record.session_id, missing=missing)
        self._hold(Held(record, found, missing))

    def _hold(self, held: Held) -> None:
        session = held.record.session_id
        earlier = self._held.pop(session, None)
        if earlier is not None:
            self._let_go(earlier)
        self._held[session] = held
        held.watch = asyncio.create_task(self._watch(held), name=f"custody:{session}")

    async def _watch(self, held: Held) -> None:
        role, exit_code = held.missing, None
        if role is None:
            ended = await wait_vital_end(held.started)
            role, exit_code = ended.role, ended.process.exit_code
        held.ended = True
        await self._on_end(held, role, exit_code)

    def _let_go(self, held: Held) -> None:
        watch = held.watch
        if watch is not None and not watch.done():
            if not held.ended:
                watch.cancel()
            self._letting_go.add(watch)
            watch.add_done_callback(self._letting_go.discard)
        # Their pidfds are kept until they end: an unwatched child would stay a zombie.
