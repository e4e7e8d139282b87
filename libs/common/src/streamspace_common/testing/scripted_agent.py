"""An agent without a runtime: it obeys commands, reports, and remembers what it did.

What it holds is a table of sessions. Fences, ids of events and the order of reports
are those of a real agent; what would start a desktop here only writes the table.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from streamspace_common.bus import Bus, BusError, Delivery, PullLoop, Reject
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import (
    Capacity,
    Heartbeat,
    Inventory,
    ResourceReport,
    ResourceState,
)
from streamspace_common.contracts.commands import (
    COMMAND,
    HibernateSession,
    StartSession,
    StopSession,
    WakeSession,
)
from streamspace_common.contracts.events import (
    AgentEvent,
    CommandReceived,
    CommandSuperseded,
    PhaseReached,
    SessionFailed,
    SessionHibernated,
    SessionStarted,
    SessionStopped,
)
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.contracts.sessions import Phase, PhaseTiming, Reason
from streamspace_common.contracts.streams import agent_durable
from streamspace_common.contracts.subjects import heartbeat

Command = StartSession | StopSession | HibernateSession | WakeSession
ROOMY = Capacity(max_sessions=1000, cpu=1000.0, memory=4 * 1024**4)


@dataclass
class Held:
    """A session the agent holds, as its runtime would."""

    generation: int
    state: ResourceState


@dataclass
class ScriptedAgent:
    """One agent instance of a cluster.

    Args:
        bus: its connection.
        cluster: its cluster, whose durable the session service has made.
        deaf_to: actions it takes and never answers, as an agent that hangs.
        failing: actions that fail for good, with the reason it then gives.
        speechless: takes commands and neither reports nor settles them, as one that hangs.
        refusing: actions it terminates without a report, in these words.
    """

    bus: Bus
    cluster: ClusterId
    instance: str = "agent-1"
    runtime: RuntimeKind = RuntimeKind.NULL
    capacity: Capacity = ROOMY
    labels: dict[str, str] = field(default_factory=dict)
    heartbeat_every: float = 0.2
    deaf_to: set[str] = field(default_factory=set)
    failing: dict[str, Reason] = field(default_factory=dict)
    refusing: dict[str, str] = field(default_factory=dict)
    speechless: bool = False
    draining: bool = False
    phases: tuple[Phase, ...] = (Phase.CREATED, Phase.READY)
    holds: dict[SessionId, Held] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    """Everything it was given, in order, repetitions included."""
    effects: list[tuple[str, SessionId]] = field(default_factory=list)
    """What it really did: no entry for what a fence held back."""
    _done: set[tuple[SessionId, int]] = field(default_factory=set)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _loop: PullLoop | None = None

    async def start(self, *, inventory: bool = True) -> None:
        """Say hello, tell what it holds, and begin to obey."""
        await self.beat()
        if inventory:
            await self.tell_inventory()
        self._loop = PullLoop(
            self.bus,
            agent_durable(self.cluster),
            self._obey,
            key=lambda delivery: delivery.subject,
            concurrency=32,
        )
        self._tasks = [
            asyncio.create_task(self._loop.run(), name=f"agent:{self.cluster}:commands"),
            asyncio.create_task(self._beat_on(), name=f"agent:{self.cluster}:heartbeats"),
        ]

    async def stop(self) -> None:
        """Vanish without a word; what it holds stays."""
        if self._loop is not None:
            await self._loop.drain(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def beat(self) -> None:
        """Send one heartbeat."""
        await self.bus.publish_core(
            heartbeat(self.cluster, self.instance),
            Heartbeat(
                cluster_id=self.cluster,
                instance=self.instance,
                runtime=self.runtime,
                version="test",
                sent_at=_now(),
                capacity=self.capacity,
                running_sessions=len(self.holds),
                draining=self.draining,
                labels=self.labels,
            ),
        )

    async def tell_inventory(self, *busy: SessionId) -> None:
        """Send what it holds."""
        await self.bus.publish_core(
            heartbeat(self.cluster, self.instance),
            Inventory(
                cluster_id=self.cluster,
                instance=self.instance,
                sent_at=_now(),
                resources=tuple(
                    ResourceReport(session_id=name, generation=held.generation, state=held.state)
                    for name, held in self.holds.items()
                ),
                busy=busy,
            ),
        )

    async def die(self, session: SessionId) -> None:
        """A desktop ends by itself, and the agent notices."""
        held = self.holds[session]
        held.state = ResourceState.DEAD
        await self._report(
            SessionFailed(
                id=f"{session}.{held.generation}.died",
                at=_now(),
                cluster_id=self.cluster,
                instance=self.instance,
                session_id=session,
                generation=held.generation,
                reason=Reason.DESKTOP_DIED,
                message="The desktop ended by itself.",
            )
        )

    def actions(self, session: SessionId) -> list[str]:
        """What it really did to a session, in order."""
        return [action for action, name in self.effects if name == session]

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(self.heartbeat_every)
            try:
                await self.beat()
            except BusError:
                continue

    async def _obey(self, delivery: Delivery) -> None:
        try:
            command = COMMAND.validate_json(delivery.payload)
        except ValidationError:
            raise Reject("unreadable command") from None
        self.commands.append(command)
        if self.speechless:
            await asyncio.Event().wait()
        if (words := self.refusing.get(command.action)) is not None:
            raise Reject(words)
        held = self.holds.get(command.session_id)
        if held is not None and held.generation > command.generation:
            await self._report(
                CommandSuperseded(
                    **self._about(command, "superseded"), newer_generation=held.generation
                )
            )
            return
        await self._report(CommandReceived(**self._about(command, "received")))
        if command.action in self.deaf_to:
            return
        if (reason := self.failing.get(command.action)) is not None:
            await self._report(
                SessionFailed(
                    **self._about(command, "failed"), reason=reason, message=f"{reason}, as told."
                )
            )
            raise Reject(f"{reason}: as told")
        await self._carry_out(command)

    async def _carry_out(self, command: Command) -> None:
        act: dict[type[Command], Callable[[Command], Awaitable[AgentEvent]]] = {
            StartSession: self._run,
            WakeSession: self._run,
            HibernateSession: self._hibernate,
            StopSession: self._remove,
        }
        # A message may come again after its server was killed; its effect must not.
        if (command.session_id, command.generation) not in self._done:
            self._done.add((command.session_id, command.generation))
            self.effects.append((command.action, command.session_id))
        await self._report(await act[type(command)](command))

    async def _run(self, command: Command) -> AgentEvent:
        timings = []
        for number, phase in enumerate(self.phases):
            timings.append(PhaseTiming(phase=phase, elapsed_ms=number + 1))
            await self._report(
                PhaseReached(**self._about(command, f"phase.{phase}"), timing=timings[-1])
            )
        self.holds[command.session_id] = Held(command.generation, ResourceState.RUNNING)
        return SessionStarted(**self._about(command, "started"), phases=tuple(timings))

    async def _hibernate(self, command: Command) -> AgentEvent:
        self.holds[command.session_id] = Held(command.generation, ResourceState.HIBERNATED)
        return SessionHibernated(**self._about(command, "hibernated"))

    async def _remove(self, command: Command) -> AgentEvent:
        self.holds.pop(command.session_id, None)
        return SessionStopped(**self._about(command, "stopped"))

    def _about(self, command: Command, what: str) -> dict[str, object]:
        return {
            # The attempt is part of it: an answer to a second attempt is news.
            "id": f"{command.command_id}.{command.attempt}.{what}",
            "at": _now(),
            "cluster_id": self.cluster,
            "instance": self.instance,
            "session_id": command.session_id,
            "generation": command.generation,
            "command_id": command.command_id,
        }

    async def _report(self, event: AgentEvent) -> None:
        await self.bus.publish_event(event, source=f"agent/{self.cluster}")


def _now() -> datetime:
    return datetime.now(UTC)
