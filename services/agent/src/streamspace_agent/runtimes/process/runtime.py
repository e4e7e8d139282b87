"""The process runtime: each session is an X server, a window manager and an application,
or an application that serves a web client on a loopback port.

Who may touch a session is ruled by its fence (see `fences`); what is remembered of it by
its record (see `records`). The record says `starting` before the first process runs and
`running` once the desktop answers, so an agent that was killed in between finds the
remains and removes them; the command that was not acknowledged comes again.

Several agents may share one state directory. Each watches every running desktop: one
that ends is buried by whoever gets the lock first, and told of by all under one event id.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from streamspace_agent.domain import Observed
from streamspace_agent.ports import (
    PassingFailure,
    ReportPhase,
    RuntimeFailure,
    SessionUnreachable,
    Superseded,
)
from streamspace_agent.runtimes.cleanup import undisturbed
from streamspace_agent.runtimes.process import endings, programs
from streamspace_agent.runtimes.process.care import translated
from streamspace_agent.runtimes.process.custody import Custody, Held
from streamspace_agent.runtimes.process.endings import Undertaker
from streamspace_agent.runtimes.process.fences import KEPT_FOR, Fences
from streamspace_agent.runtimes.process.homes import Homes
from streamspace_agent.runtimes.process.paths import Layout
from streamspace_agent.runtimes.process.presence import Presence
from streamspace_agent.runtimes.process.records import Records, SessionRecord
from streamspace_agent.runtimes.process.starts import ProcessOptions, Starts
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity, ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, SessionSpec
from streamspace_common.relay.pump import Leg
from streamspace_common.relay.stream import connect_stream
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

RFB_PORT = 5900
"""What the control plane calls the display of a session; it listens on a socket."""


class ProcessRuntime:
    """A `Runtime` of this machine's processes."""

    kind = RuntimeKind.PROCESS

    def __init__(self, layout: Layout, options: ProcessOptions) -> None:
        self._layout = layout
        self._options = options
        self._fences = Fences(layout.fences)
        self._records = Records(layout.records)
        self._homes = Homes(layout, self._records)
        self._undertaker = Undertaker(layout, grace=options.kill_grace)
        self._starts = Starts(layout, options, self._records, self._undertaker)
        self._custody = Custody(self._records, self._on_end)
        self._presence = Presence(layout.state / "agents.lock")
        self._changes: asyncio.Queue[Observed] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()

    # Taking over and letting go

    async def open(self) -> None:
        self._presence.enter()
        await asyncio.to_thread(self._homes.finish_removals)
        for record in self._records.all():
            await self._take_over(record)
        self._custody.look()
        self._background(self._keep_looking())

    async def close(self, *, stop_sessions: bool) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        held = await self._custody.release_all()
        if stop_sessions and self._presence.is_last():
            await asyncio.gather(*(self._suspend(session) for session in held))
        with contextlib.suppress(OSError):
            # Only where it is empty; the next session makes it again.
            self._layout.sockets.rmdir()
        self._presence.leave()

    async def _take_over(self, record: SessionRecord) -> None:
        session = record.session_id
        if record.state is ResourceState.DEAD:
            self._changes.put_nowait(self._observe(record))
        elif record.suspended:
            self._background(self._resume(record))
        elif record.state is ResourceState.STARTING and not self._fences.is_held(session):
            # Its agent was killed amid the start; the command comes again.
            log.info("removing a start that was cut short", session=session)
            async with self._fences.hold(session):
                try:
                    await self._starts.undo_cut_short(record)
                except (PassingFailure, OSError) as error:
                    log.warning("could not be removed", session=session, error=str(error))

    async def _suspend(self, session: SessionId) -> None:
        async with self._fences.hold(session):
            record = self._records.load(session)
            if record is None or record.state is not ResourceState.RUNNING:
                return
            self._records.save(record.model_copy(update={"suspended": True}))
            await self._bury(session, record)

    async def _resume(self, record: SessionRecord) -> None:
        log.info("resuming a session that ended with the last agent", session=record.session_id)
        try:
            await self.ensure_running(record.spec, record.generation, _ignore_phase)
        except Superseded:
            return
        except RuntimeFailure as failure:
            log.warning("could not resume", session=record.session_id, reason=str(failure))
            async with self._fences.hold(record.session_id):
                current = self._records.load(record.session_id)
                if current is not None and current.suspended:
                    await self._declare_dead(current, str(failure))

    # What is there

    async def observe(self, session: SessionId) -> Observed | None:
        record = self._records.load(session)
        if record is not None:
            return self._observe(record)
        generation = self._fences.current(session)
        return Observed(session, generation, None) if generation else None

    async def inventory(self) -> tuple[Observed, ...]:
        return tuple(self._observe(record) for record in self._records.all())

    async def watch(self) -> AsyncIterator[Observed]:
        while True:
            yield await self._changes.get()

    async def capacity(self) -> Capacity:
        return self._options.capacity

    async def trouble(self) -> str | None:
        return programs.missing_for_any_session() or self._starts.lack_of_space()

    def _observe(self, record: SessionRecord) -> Observed:
        return record.observed(self._fences.current(record.session_id))

    # Bringing about what is wanted

    async def ensure_running(
        self, spec: SessionSpec, generation: int, report_phase: ReportPhase
    ) -> None:
        session = spec.session_id
        async with self._fenced(session, generation):
            before = self._records.load(session)
            if before is not None and self._custody.is_alive(before):
                with translated():
                    self._records.save(before.model_copy(update={"generation": generation}))
                return
            with translated():
                launch = self._starts.prepare(spec)
            report_phase(Phase.SCHEDULED)
            try:
                with translated():
                    record = await self._starts.carry_out(
                        launch, spec, generation, before, report_phase
                    )
                self._fences.check(session, generation)
            except BaseException:
                await undisturbed(self._starts.undo(session, before))
                raise
            self._records.save(record)
            self._custody.take(record, launch.started)

    async def ensure_hibernated(self, spec: SessionSpec, generation: int) -> None:
        session = spec.session_id
        async with self._fenced(session, generation):
            with translated():
                await self._undertaker.bury(session, self._records.load(session))
                self._records.save(
                    SessionRecord(
                        session_id=session,
                        generation=generation,
                        state=ResourceState.HIBERNATED,
                        spec=spec,
                    )
                )
            self._fences.check(session, generation)

    async def ensure_absent(
        self, session: SessionId, generation: int, *, delete_home: bool
    ) -> None:
        async with self._fenced(session, generation):
            record = self._records.load(session)
            with translated():
                await self._undertaker.bury(session, record)
                await self._homes.leave(session, record, delete=delete_home)
            self._records.remove(session)

    async def dial(self, session: SessionId, port: int) -> Leg:
        record = self._records.load(session)
        if record is None or record.state is not ResourceState.RUNNING:
            raise SessionUnreachable("The session is not running here.")
        template = record.spec.template_manifest.spec
        offered = RFB_PORT
        if template.connection is not None and template.process_serves_http:
            offered = template.connection.port
        if offered != port:
            # Only the session is offered, never the machine's own ports.
            raise SessionUnreachable(f"The session offers port {offered}, not {port}.")
        address: str | tuple[str, int] = str(self._layout.session(session).rfb)
        if record.http_port is not None:
            address = ("127.0.0.1", record.http_port)
        try:
            return await connect_stream(address)
        except OSError as error:
            raise SessionUnreachable(f"The session does not answer: {error}.") from error

    @contextlib.asynccontextmanager
    async def _fenced(self, session: SessionId, generation: int) -> AsyncIterator[None]:
        """Write the generation, then be the only one to work on the session.

        Raises:
            Superseded: a newer one is there, or came while we waited.
        """
        with translated():
            self._fences.raise_to(session, generation)
        async with self._fences.hold(session):
            self._fences.check(session, generation)
            yield

    # Deaths

    async def _on_end(self, held: Held, role: str, exit_code: int | None) -> None:
        """A vital process of a running session is gone: find out whether it died."""
        session = held.record.session_id
        async with self._fences.hold(session):
            record = self._records.load(session)
            if (
                record is None
                or record.incarnation != held.record.incarnation
                or record.state is not ResourceState.RUNNING
                or record.suspended
            ):
                # It was ended on purpose, or another agent has seen to it.
                return
            words = endings.tell(role, exit_code, self._layout.session(session).log(role))
            await self._declare_dead(record, words)

    async def _declare_dead(self, record: SessionRecord, message: str) -> None:
        dead = record.model_copy(
            update={"state": ResourceState.DEAD, "suspended": False, "death_message": message}
        )
        try:
            self._records.save(dead)
        except OSError as error:
            # A full disk may well be what it died of: that must not hide the death.
            log.warning("death not written down", session=record.session_id, error=str(error))
        log.warning("desktop died", session=record.session_id, message=message)
        self._changes.put_nowait(self._observe(dead))
        await self._bury(record.session_id, record)

    async def _bury(self, session: SessionId, record: SessionRecord | None) -> None:
        """As well as it can be done: what stays behind is found again by its marks."""
        try:
            await self._undertaker.bury(session, record)
        except (PassingFailure, OSError) as error:
            log.warning("something is left of a session", session=session, error=str(error))

    # Time passing

    async def _keep_looking(self) -> None:
        """Every second: what other agents of this machine did; now and then: housekeeping."""
        rounds = 0
        while True:
            await asyncio.sleep(1.0)
            rounds += 1
            self._custody.look()
            if rounds % 30 == 0:
                self._cut_long_logs()
            if rounds % 3600 == 0:
                await self._forget_old()

    async def _forget_old(self) -> None:
        """Drop what nobody can ask about any more."""
        for record in self._records.all():
            session = record.session_id
            if record.state is ResourceState.DEAD and self._records.age(session) > KEPT_FOR:
                async with self._fences.hold(session):
                    self._records.remove(session)
        self._fences.prune(lambda session: self._records.load(session) is not None)

    def _cut_long_logs(self) -> None:
        for session in self._records.sessions():
            for log_file in self._layout.session(session).root.glob("*.log"):
                endings.cut_long_log(log_file)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _ignore_phase(_phase: Phase, _message: str | None = None, *, ongoing: bool = False) -> None:
    """A resumed session tells nobody of its phases."""
