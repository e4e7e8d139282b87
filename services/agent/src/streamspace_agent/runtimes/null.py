"""A runtime without effect: it writes what it would have done to a ledger, one line each.

For load tests (what does the rest of the system cost?) and fault tests (was every command
carried out, and once?). The ledger is its only state: agents that share the file share
the sessions, and one that was killed finds everything again. A line is one `write` under
a lock, so a kill at any instant leaves whole lines; nothing is forced to the disk, as a
crash of the machine is not what is tested.

Delays and failures are settings: `failure_rate` of the operations fail but may be tried
again, `fatal_rate` of the starts fail for good. A stream is an echo, or leads to a server
of the test's own, which learns by a first line whose stream it is.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import cast

import aiofastnet

from streamspace_agent.domain import Death, Observed
from streamspace_agent.ports import (
    PassingFailure,
    PermanentFailure,
    ReportPhase,
    SessionUnreachable,
    Superseded,
)
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity, ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, Reason, SessionSpec
from streamspace_common.relay.pump import Leg
from streamspace_common.relay.stream import StreamLeg, connect_stream

BANNER = b"RFB 003.008\n"
_LOOK_EVERY = 0.5


class Effect(StrEnum):
    """What a line of the ledger says was done. `FENCED`: a generation was written."""

    FENCED = "fenced"
    STARTED = "started"
    CONFIRMED = "confirmed"
    HIBERNATED = "hibernated"
    REMOVED = "removed"
    HOME_DELETED = "home-deleted"
    DIED = "died"


@dataclass(frozen=True)
class NullOptions:
    """Delays in seconds, rates from 0 to 1.

    `stream` is the host and port that streams lead to; None for an echo.
    """

    capacity: Capacity
    start_delay: float = 0.0
    stop_delay: float = 0.0
    delay_jitter: float = 0.0
    failure_rate: float = 0.0
    fatal_rate: float = 0.0
    seed: int | None = None
    stream: tuple[str, int] | None = None


@dataclass
class _Session:
    fence: int = 0
    generation: int = 0
    state: ResourceState | None = None
    port: int | None = None
    line: int = 0
    """Where the ledger last spoke of it; names the run that a death ended."""

    def observed(self, session: SessionId) -> Observed:
        death = None
        if self.state is ResourceState.DEAD:
            death = Death(str(self.line), "The null session was told to die.")
        return Observed(session, max(self.fence, self.generation), self.state, death)


_STATE_AFTER: dict[Effect, ResourceState | None] = {
    Effect.STARTED: ResourceState.RUNNING,
    Effect.CONFIRMED: ResourceState.RUNNING,
    Effect.HIBERNATED: ResourceState.HIBERNATED,
    Effect.REMOVED: None,
    Effect.DIED: ResourceState.DEAD,
}


@dataclass
class Ledger:
    """The file, and what it says: read on from where we stopped before every decision."""

    path: Path
    sessions: dict[SessionId, _Session] = field(default_factory=dict)
    died: list[SessionId] = field(default_factory=list)
    _position: int = 0
    _lines: int = 0

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else writes meanwhile, and everything written is known."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._catch_up(handle)
            yield
        finally:
            os.close(handle)

    def of(self, session: SessionId) -> _Session:
        return self.sessions.setdefault(session, _Session())

    def write(
        self, session: SessionId, generation: int, effect: Effect, port: int | None = None
    ) -> None:
        """Add a line; call within `exclusive`."""
        line = {
            "time": round(time.time(), 6),
            "session": session,
            "generation": generation,
            "effect": effect,
            **({"port": port} if port is not None else {}),
        }
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND)
        try:
            os.write(handle, json.dumps(line).encode() + b"\n")
            self._catch_up(handle)
        finally:
            os.close(handle)

    def _catch_up(self, handle: int) -> None:
        size = os.fstat(handle).st_size
        if size == self._position:
            return
        content = os.pread(handle, size - self._position, self._position)
        self._position = size
        for text in content.splitlines():
            self._lines += 1
            self._apply(json.loads(text))

    def _apply(self, line: dict[str, object]) -> None:
        effect = Effect(str(line["effect"]))
        session = SessionId(str(line["session"]))
        entry = self.of(session)
        generation = int(str(line["generation"]))
        entry.fence = max(entry.fence, generation)
        if effect not in _STATE_AFTER:
            return
        entry.generation, entry.state, entry.line = generation, _STATE_AFTER[effect], self._lines
        port = line.get("port")
        entry.port = int(str(port)) if port is not None else entry.port
        if effect is Effect.DIED:
            self.died.append(session)


class NullRuntime:
    """A `Runtime` that only keeps its ledger."""

    kind = RuntimeKind.NULL

    def __init__(self, ledger: Path, options: NullOptions) -> None:
        self._options = options
        self._random = random.Random(options.seed)
        self._locks: dict[SessionId, asyncio.Lock] = {}
        self._ledger = Ledger(ledger)
        self._told = 0
        self._changed = asyncio.Event()

    async def open(self) -> None:
        self._ledger.path.parent.mkdir(parents=True, exist_ok=True)
        with self._ledger.exclusive():
            # Deaths that were seen to since are history, not news.
            self._ledger.died = [s for s in self._ledger.died if self._is_dead(s)]

    async def close(self, *, stop_sessions: bool) -> None:
        """Nothing runs, so nothing is stopped."""

    async def observe(self, session: SessionId) -> Observed | None:
        with self._ledger.exclusive():
            entry = self._ledger.sessions.get(session)
            return entry.observed(session) if entry is not None else None

    async def inventory(self) -> tuple[Observed, ...]:
        with self._ledger.exclusive():
            return tuple(
                entry.observed(session)
                for session, entry in self._ledger.sessions.items()
                if entry.state is not None
            )

    async def watch(self) -> AsyncIterator[Observed]:
        while True:
            with self._ledger.exclusive():
                news = self._ledger.died[self._told :]
                self._told += len(news)
                dead = [self._ledger.of(s).observed(s) for s in news if self._is_dead(s)]
            for observed in dead:
                yield observed
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._changed.wait()

    async def ensure_running(
        self, spec: SessionSpec, generation: int, report_phase: ReportPhase
    ) -> None:
        session = spec.session_id
        self._fence(session, generation)
        async with self._lock(session):
            if self._confirmed(session, generation):
                return
            report_phase(Phase.SCHEDULED)
            await self._pause(self._options.start_delay)
            self._perhaps_fail()
            if self._random.random() < self._options.fatal_rate:
                raise PermanentFailure(Reason.START_FAILED, "The null runtime was told to fail.")
            connection = spec.template_manifest.spec.connection
            with self._ledger.exclusive():
                # Another agent may have started it meanwhile.
                if self._confirmed_now(session, generation):
                    return
                self._ledger.write(
                    session,
                    generation,
                    Effect.STARTED,
                    connection.port if connection else None,
                )
            report_phase(Phase.READY)

    async def ensure_hibernated(self, spec: SessionSpec, generation: int) -> None:
        session = spec.session_id
        self._fence(session, generation)
        async with self._lock(session):
            await self._pause(self._options.stop_delay)
            self._perhaps_fail()
            with self._ledger.exclusive():
                self._check(session, generation)
                self._ledger.write(session, generation, Effect.HIBERNATED)

    async def ensure_absent(
        self, session: SessionId, generation: int, *, delete_home: bool
    ) -> None:
        self._fence(session, generation)
        async with self._lock(session):
            await self._pause(self._options.stop_delay)
            self._perhaps_fail()
            with self._ledger.exclusive():
                self._check(session, generation)
                if self._ledger.of(session).state is None:
                    return
                if delete_home:
                    self._ledger.write(session, generation, Effect.HOME_DELETED)
                self._ledger.write(session, generation, Effect.REMOVED)

    async def dial(self, session: SessionId, port: int) -> Leg:
        """A stream to where the options say, or one that greets as a desktop would and then
        sends back what it gets.
        """
        with self._ledger.exclusive():
            entry = self._ledger.of(session)
            if entry.state is not ResourceState.RUNNING:
                raise SessionUnreachable("The session is not running here.")
            if entry.port is not None and entry.port != port:
                raise SessionUnreachable(f"The session offers port {entry.port}, not {port}.")
        if self._options.stream is not None:
            return await _far_end(self._options.stream, session)
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        await loop.create_unix_connection(_Echo, sock=far)
        _, leg = await aiofastnet.create_unix_connection(loop, StreamLeg, sock=near)
        return leg

    async def kill(self, session: SessionId) -> None:
        """Let a session die, as a desktop does that crashed."""
        with self._ledger.exclusive():
            entry = self._ledger.of(session)
            self._ledger.write(session, entry.generation, Effect.DIED)
        self._changed.set()

    async def capacity(self) -> Capacity:
        return self._options.capacity

    async def trouble(self) -> str | None:
        return None

    def _fence(self, session: SessionId, generation: int) -> None:
        with self._ledger.exclusive():
            self._check(session, generation)
            if self._ledger.of(session).fence < generation:
                self._ledger.write(session, generation, Effect.FENCED)

    def _check(self, session: SessionId, generation: int) -> None:
        fence = self._ledger.of(session).fence
        if fence > generation:
            raise Superseded(fence)

    def _confirmed(self, session: SessionId, generation: int) -> bool:
        """Whether it runs already; then that is written down for this generation."""
        with self._ledger.exclusive():
            return self._confirmed_now(session, generation)

    def _confirmed_now(self, session: SessionId, generation: int) -> bool:
        self._check(session, generation)
        if self._ledger.of(session).state is not ResourceState.RUNNING:
            return False
        self._ledger.write(session, generation, Effect.CONFIRMED)
        return True

    def _is_dead(self, session: SessionId) -> bool:
        return self._ledger.of(session).state is ResourceState.DEAD

    def _lock(self, session: SessionId) -> asyncio.Lock:
        return self._locks.setdefault(session, asyncio.Lock())

    async def _pause(self, delay: float) -> None:
        if delay > 0:
            spread = self._options.delay_jitter
            await asyncio.sleep(delay * self._random.uniform(1 - spread, 1 + spread))

    def _perhaps_fail(self) -> None:
        if self._random.random() < self._options.failure_rate:
            raise PassingFailure("The null runtime was told to fail this time.")


async def _far_end(address: tuple[str, int], session: SessionId) -> Leg:
    try:
        leg = await connect_stream(address)
    except OSError as error:
        raise SessionUnreachable(f"Nothing plays this session's part: {error}.") from error
    leg.write(f"{session}\n".encode())
    return leg


class _Echo(asyncio.Protocol):
    """The far end of a null session."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not by `isinstance`: uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(BANNER)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)
