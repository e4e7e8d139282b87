"""The docker runtime; how it keeps two agents from undoing each other's work is told above,
in the package's story.

Inside one agent a lock per session keeps its commands apart, too: a newer command writes
its word without waiting for it, and whoever holds it reads the words again before its
work counts.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from streamspace_agent.domain import Observed
from streamspace_agent.ports import (
    PassingFailure,
    ReportPhase,
    RuntimeFailure,
    SessionUnreachable,
)
from streamspace_agent.runtimes.cleanup import undisturbed
from streamspace_agent.runtimes.docker import manifests, naming, observation
from streamspace_agent.runtimes.docker.care import translated
from streamspace_agent.runtimes.docker.engine import (
    ConflictError,
    Engine,
    EngineError,
    NotFoundError,
    RefusedError,
)
from streamspace_agent.runtimes.docker.following import Follower
from streamspace_agent.runtimes.docker.holdings import Holdings
from streamspace_agent.runtimes.docker.manifests import ContainerOptions
from streamspace_agent.runtimes.docker.naming import Kind, Stage
from streamspace_agent.runtimes.docker.observation import Held, Word
from streamspace_agent.runtimes.docker.starts import Starts
from streamspace_agent.runtimes.docker.views import EngineInfo
from streamspace_agent.runtimes.docker.words import Words
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState, SessionSpec
from streamspace_common.relay.pump import Leg
from streamspace_common.relay.stream import connect_stream
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_SPARE_SECONDS = 60.0
_TRIES = 3


@dataclass(frozen=True)
class DockerOptions:
    """How sessions are run on an engine; times in seconds."""

    offer: Callable[[EngineInfo], Capacity]
    """What to offer, given what the engine's machine has."""
    host: str | None = None
    """As in DOCKER_HOST; None for that, or else the default socket."""
    containers: ContainerOptions = field(default_factory=ContainerOptions)
    start_timeout: float = 180.0


class DockerRuntime:
    """A `Runtime` of a Docker-compatible engine's containers."""

    kind = RuntimeKind.DOCKER

    def __init__(self, options: DockerOptions) -> None:
        self._options = options
        containers = options.containers
        self._names = containers.names
        self._engine = Engine(options.host, self._names.network)
        self._words = Words(self._engine, self._names)
        self._holdings = Holdings(self._engine, containers)
        self._starts = Starts(
            self._engine, self._words, self._holdings, containers, timeout=options.start_timeout
        )
        self._follower = Follower(
            self._engine,
            self._words,
            self._holdings,
            containers,
            abandoned_after=options.start_timeout + _SPARE_SECONDS,
            resume=self._resume,
        )
        self._following: asyncio.Task[None] | None = None
        self._resuming: set[asyncio.Task[None]] = set()
        self._locks: WeakValueDictionary[SessionId, asyncio.Lock] = WeakValueDictionary()
        self._info: EngineInfo | None = None

    # Taking over and letting go

    async def open(self) -> None:
        """Begin to follow; the engine may come up later than we do."""
        with contextlib.suppress(EngineError):
            await self._have_network()
        self._following = asyncio.create_task(self._follower.run(), name="docker:follow")

    async def close(self, *, stop_sessions: bool) -> None:
        tasks = [*self._resuming, *([self._following] if self._following else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if stop_sessions:
            try:
                holdings = await self._holdings.all()
            except EngineError as error:
                log.warning("sessions are left as they are", error=str(error))
            else:
                await asyncio.gather(
                    *(self._suspend(each) for held in holdings.values() for each in held)
                )
        await self._engine.close()

    async def _suspend(self, held: Held) -> None:
        if held.name.stage is not Stage.SETTLED or not held.alive:
            return
        async with self._lock(held.name.session):
            try:
                if await self._holdings.move(held, held.name.generation, Stage.SUSPENDED):
                    grace = self._options.containers.grace
                    await self._engine.stop(held.container.id, grace)
            except EngineError as error:
                log.warning("could not be ended", session=held.name.session, error=str(error))

    async def _resume(self, held: Held) -> None:
        task = asyncio.create_task(self._start_again(held), name=f"resume:{held.name.session}")
        self._resuming.add(task)
        task.add_done_callback(self._resuming.discard)

    async def _start_again(self, held: Held) -> None:
        """Start a desktop that ended with its agent; if it cannot be, it is a dead one."""
        session, generation = held.name.session, held.name.generation
        async with self._lock(session):
            try:
                if not await self._holdings.move(held, generation, Stage.STARTING):
                    return
                log.info("resuming a session that ended with the last agent", session=session)
                try:
                    await self._engine.start(held.container.id)
                    connection = manifests.offered_connection(held.container.labels)
                    await self._starts.until_ready(held.container.id, connection)
                except (RuntimeFailure, EngineError) as error:
                    log.warning("could not resume", session=session, reason=str(error))
                    with contextlib.suppress(NotFoundError, RefusedError):
                        await self._engine.stop(held.container.id, 0)
                name = self._names.container(session, generation, Stage.STARTING)
                settled = self._names.container(session, generation, Stage.SETTLED)
                await self._engine.rename(name, settled)
                await self._follower.look()
            except EngineError as error:
                log.warning("could not resume", session=session, reason=str(error))

    # What is there

    async def observe(self, session: SessionId) -> Observed | None:
        with translated():
            held = await self._holdings.of(session)
            observed = observation.observe(session, await self._words.of(session), held)
            if observed is None:
                return None
            return await self._follower.details(session, held, observed)

    async def inventory(self) -> tuple[Observed, ...]:
        with translated():
            holdings = await self._holdings.all()
            words = await self._words.all()
        found = (
            observation.observe(session, words.get(session, []), holdings.get(session, []))
            for session in sorted(holdings.keys() | words.keys())
        )
        return tuple(each for each in found if each is not None and each.state is not None)

    async def watch(self) -> AsyncGenerator[Observed, None]:
        while True:
            yield await self._follower.deaths.get()

    async def capacity(self) -> Capacity:
        """Nothing while the engine has never answered."""
        if self._info is None:
            try:
                self._info = await self._engine.info()
            except EngineError:
                return Capacity(max_sessions=0, cpu=0, memory=0)
        return self._options.offer(self._info)

    async def trouble(self) -> str | None:
        try:
            await self._engine.version()
        except EngineError as error:
            return f"The container engine does not answer: {error}."
        return None

    # Bringing about what is wanted

    async def ensure_running(
        self, spec: SessionSpec, generation: int, report_phase: ReportPhase
    ) -> None:
        session = spec.session_id
        home = spec.home if spec.persistent_home else None
        async with self._turn(session, generation, DesiredState.RUNNING, home) as words:
            if not await self._adopt(session, generation):
                await self._have_network()
                try:
                    container = await self._starts.carry_out(
                        spec, generation, await self._holdings.of(session), report_phase
                    )
                except BaseException:
                    if not observation.rests(words):
                        await undisturbed(self._remove_temporary_home(session))
                    raise
                self._follower.note(container, session, generation)
            await self._words.check(session, generation)
            await self._words.drop_older(words, generation)

    async def ensure_hibernated(self, spec: SessionSpec, generation: int) -> None:
        session = spec.session_id
        home = spec.home if spec.persistent_home else None
        async with self._turn(session, generation, DesiredState.HIBERNATED, home) as words:
            await self._end(session, generation)
            await self._words.check(session, generation)
            await self._words.drop_older(words, generation)

    async def ensure_absent(
        self, session: SessionId, generation: int, *, delete_home: bool
    ) -> None:
        async with self._turn(session, generation, DesiredState.TERMINATED) as words:
            await self._end(session, generation)
            await self._remove_temporary_home(session)
            if delete_home:
                await self._delete_home(session, words)
            await self._words.check(session, generation)
            await self._words.drop_older(words, generation)

    async def dial(self, session: SessionId, port: int) -> Leg:
        try:
            desktop = observation.settled(await self._holdings.of(session))
        except EngineError as error:
            raise SessionUnreachable(f"The container engine does not answer: {error}.") from error
        if desktop is None or not desktop.alive or desktop.container.address is None:
            raise SessionUnreachable("The session is not running here.")
        offered = manifests.offered_ports(desktop.container.labels)
        if port not in offered:
            # Only the session is offered, never what else listens in its container.
            ports = ", ".join(map(str, sorted(offered)))
            raise SessionUnreachable(f"The session offers port {ports}, not {port}.")
        try:
            return await connect_stream((desktop.container.address, port))
        except OSError as error:
            raise SessionUnreachable(f"The session does not answer: {error}.") from error

    @contextlib.asynccontextmanager
    async def _turn(
        self,
        session: SessionId,
        generation: int,
        wanted: DesiredState,
        home: str | None = None,
    ) -> AsyncIterator[list[Word]]:
        """Write the word, then be the only one in this agent to work on the session.

        Raises:
            Superseded: a newer word is there, or came while we waited.
            PassingFailure: the engine does not do what it should.
        """
        with translated():
            await self._words.speak(session, generation, wanted, home)
            async with self._lock(session):
                words = await self._words.check(session, generation)
                try:
                    yield words
                except (RuntimeFailure, EngineError):
                    # What a newer word's work did to ours is no failure of ours.
                    await self._words.check(session, generation)
                    raise

    async def _adopt(self, session: SessionId, generation: int) -> bool:
        """Take a desktop that runs over for this generation; False when there is none."""
        for _ in range(_TRIES):
            desktop = observation.settled(await self._holdings.of(session))
            if desktop is None or not desktop.alive:
                return False
            if desktop.name.generation == generation:
                return True
            try:
                moved = await self._holdings.move(desktop, generation, Stage.SETTLED)
            except ConflictError:
                moved = False
            if moved:
                # It may have been on its way out when it got its new name.
                try:
                    if await self._engine.ending(desktop.container.id) is None:
                        self._follower.note(desktop.container.id, session, generation)
                        return True
                except NotFoundError:
                    continue
        raise PassingFailure("Another agent works on this session.")

    async def _end(self, session: SessionId, generation: int) -> None:
        """Take away what runs for this generation or an older one."""
        for _ in range(_TRIES):
            held = [
                each
                for each in await self._holdings.of(session)
                if each.name.generation <= generation
            ]
            if not held:
                return
            for each in held:
                await self._holdings.remove(each, gently=each.name.stage is Stage.SETTLED)

    async def _remove_temporary_home(self, session: SessionId) -> None:
        labels = manifests.label_filter(self._names, Kind.HOME, session)
        await self._remove_volumes(labels)

    async def _delete_home(self, session: SessionId, words: list[Word]) -> None:
        newest = observation.last(words)
        home = newest.home if newest is not None else None
        if home is None:
            return
        others = [
            other
            for other, said in (await self._words.all()).items()
            if other != session
            and (last := observation.last(said)) is not None
            and last.home == home
            and last.wanted is not DesiredState.TERMINATED
            and (observation.rests(said) or await self._holdings.of(other))
        ]
        if others:
            log.warning("home kept, other sessions use it", home=home, by=others)
            return
        await self._remove_volumes(self._names.labels(Kind.HOME, {naming.HOME: home}))

    async def _remove_volumes(self, labels: dict[str, str]) -> None:
        for volume in await self._engine.volumes(labels):
            try:
                await self._engine.remove_volume(volume.name)
            except ConflictError:
                log.warning("home kept, a container uses it", volume=volume.name)

    async def _have_network(self) -> None:
        if not await self._engine.has_network(self._names.network):
            with contextlib.suppress(ConflictError):
                await self._engine.create_network(manifests.network(self._options.containers))

    def _lock(self, session: SessionId) -> asyncio.Lock:
        return self._locks.setdefault(session, asyncio.Lock())
