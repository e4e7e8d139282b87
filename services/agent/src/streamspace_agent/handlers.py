"""Commands in, events out: reads a command, lets `reconcile` decide, and carries it out.

The order that makes a kill at any instant harmless: the effect first, then its event,
stored, and only then the acknowledgement. Whatever was cut short comes again, is found
done or half done, and is told under the same event ids.

A command that turns out to be outdated while it is worked on (`newer`) is cut short; the
runtime undoes what it had done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pydantic import ValidationError

from streamspace_agent import metrics
from streamspace_agent.domain import Observed
from streamspace_agent.ports import (
    Events,
    PassingFailure,
    PermanentFailure,
    Runtime,
    Superseded,
)
from streamspace_agent.reconcile import Action, Desired, reconcile
from streamspace_agent.reports import AnyCommand, Reporter
from streamspace_common.contracts.commands import (
    COMMAND,
    HibernateSession,
    StartSession,
    StopSession,
    WakeSession,
    desired_by,
)
from streamspace_common.contracts.events import AgentEvent
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, PhaseTiming, Reason
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.logging import bind, get_logger
from streamspace_common.runtime.tracing import current_traceparent, past_span, span

log = get_logger(__name__)

_FAILED: Final[dict[type[AnyCommand], Reason]] = {
    StartSession: Reason.START_FAILED,
    WakeSession: Reason.WAKE_FAILED,
    HibernateSession: Reason.HIBERNATE_FAILED,
    StopSession: Reason.STOP_FAILED,
}


@dataclass(frozen=True)
class Done:
    """The command is settled and its result is stored."""


@dataclass(frozen=True)
class TryAgain:
    """It did not work now."""

    reason: str


@dataclass(frozen=True)
class Refuse:
    """It will never work, and those who wait for it have been told."""

    reason: str


Outcome = Done | TryAgain | Refuse


@dataclass
class _Work:
    """One command in hand, and the events it has caused so far."""

    command: AnyCommand
    events: Events
    began: float
    observed: Observed | None = None
    phases: list[PhaseTiming] = field(default_factory=list)
    words: int = 0
    """How often something was said of a phase that went on."""
    newer: int | None = None
    task: asyncio.Task[None] | None = None
    _telling: list[asyncio.Task[None]] = field(default_factory=list)

    def tell(self, event: AgentEvent) -> None:
        """Send an event without waiting; events leave in the order they are told."""
        self._telling.append(asyncio.create_task(self.events.publish(event)))

    async def all_told(self) -> None:
        """Wait until every event is stored."""
        await asyncio.gather(*self._telling)

    async def abandon(self) -> None:
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)


class CommandHandler:
    """Carries out the commands of one cluster, one at a time per session.

    Args:
        reporter: speaks for this agent.
        runtime: what sessions are carried out with.
        events: where events go.
        clock: the time.
        leeway: how late by our own clock a command may come; clocks differ, and one
            carried out in vain is undone by the inventory.
    """

    def __init__(
        self,
        reporter: Reporter,
        runtime: Runtime,
        events: Events,
        clock: Clock,
        *,
        leeway: timedelta,
    ) -> None:
        self._reporter = reporter
        self._runtime = runtime
        self._events = events
        self._clock = clock
        self._leeway = leeway
        self._working: dict[SessionId, _Work] = {}
        self._steps: Mapping[Action, Callable[[_Work], Awaitable[None]]] = {
            Action.TELL_RECEIVED: self._tell_received,
            Action.START: self._start,
            Action.HIBERNATE: self._hibernate,
            Action.REMOVE: self._remove,
            Action.TELL_STARTED: self._tell_started,
            Action.TELL_HIBERNATED: self._tell_hibernated,
            Action.TELL_STOPPED: self._tell_stopped,
            Action.TELL_DEATH: self._tell_death,
            Action.TELL_EXPIRED: self._tell_expired,
            Action.TELL_SUPERSEDED: self._tell_superseded,
        }

    @property
    def busy(self) -> tuple[SessionId, ...]:
        """Sessions a command is working on right now."""
        return tuple(self._working)

    async def handle(self, payload: bytes, *, last_try: bool) -> Outcome:
        """Carry out one command; the outcome says what becomes of its delivery."""
        try:
            command = COMMAND.validate_json(payload)
        except ValidationError as error:
            # Without its text: a command we cannot read may hold anything.
            log.warning("unreadable command", errors=error.error_count())
            return Refuse("unreadable command")
        if command.cluster_id != self._reporter.cluster:
            log.error("a command of another cluster", cluster=command.cluster_id)
            return Refuse(f"this agent serves {self._reporter.cluster}")
        with bind(session_id=command.session_id, command_id=command.command_id):
            work = _Work(command, self._events, self._clock.monotonic())
            self._working[command.session_id] = work
            try:
                with span(
                    f"carry out {command.action}",
                    session_id=command.session_id,
                    command_id=command.command_id,
                    generation=command.generation,
                ):
                    return await self._settle(work, last_try=last_try)
            finally:
                del self._working[command.session_id]

    def newer(self, payload: bytes) -> None:
        """A command has come for a session that is being worked on: cut that work short."""
        try:
            command = COMMAND.validate_json(payload)
        except ValidationError:
            return
        work = self._working.get(command.session_id)
        if work is None or work.task is None or command.generation <= work.command.generation:
            return
        log.info("cut short", session_id=command.session_id, newer=command.generation)
        work.newer = command.generation
        work.task.cancel()

    async def give_up(self, payload: bytes) -> None:
        """Tell that a command failed which this agent could not even handle properly."""
        try:
            command = COMMAND.validate_json(payload)
        except ValidationError:
            return
        await self._events.publish(
            self._reporter.failed(
                command,
                self._now(),
                _FAILED[type(command)],
                "The agent failed unexpectedly; its log tells why.",
            )
        )

    async def _settle(self, work: _Work, *, last_try: bool) -> Outcome:
        try:
            outcome, result = await self._outcome(work, last_try=last_try)
            await work.all_told()
        except asyncio.CancelledError:
            await work.abandon()
            raise
        metrics.COMMANDS.labels(type=work.command.action, result=result).inc()
        log.info(
            "command settled",
            action=work.command.action,
            generation=work.command.generation,
            result=result,
            seconds=round(self._clock.monotonic() - work.began, 3),
        )
        return outcome

    async def _outcome(self, work: _Work, *, last_try: bool) -> tuple[Outcome, str]:
        """The outcome, and the word for it in the metrics."""
        command = work.command
        work.task = asyncio.create_task(self._carry_out(work))
        try:
            await work.task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if work.newer is None or (current is not None and current.cancelling()):
                raise
            work.tell(self._reporter.superseded(command, self._now(), work.newer))
            return Done(), "superseded"
        except Superseded as failure:
            work.tell(self._reporter.superseded(command, self._now(), failure.newer_generation))
            return Done(), "superseded"
        except PermanentFailure as failure:
            reason = failure.reason
            if reason is Reason.START_FAILED:
                reason = _FAILED[type(command)]
            return self._fail(work, reason, str(failure))
        except PassingFailure as failure:
            if last_try:
                return self._fail(work, _FAILED[type(command)], str(failure))
            log.warning("failed, to be tried again", action=command.action, reason=str(failure))
            return TryAgain(str(failure)), "retried"
        return Done(), "completed"

    def _fail(self, work: _Work, reason: Reason, message: str) -> tuple[Outcome, str]:
        log.error("command failed", action=work.command.action, reason=reason, message=message)
        work.tell(self._reporter.failed(work.command, self._now(), reason, message))
        return Refuse(f"{reason}: {message}"), "failed"

    async def _carry_out(self, work: _Work) -> None:
        command = work.command
        work.observed = await self._runtime.observe(command.session_id)
        desired = Desired(
            command.session_id,
            command.generation,
            desired_by(command),
            command.deadline + self._leeway,
        )
        for action in reconcile(desired, work.observed, self._now()):
            await self._steps[action](work)

    # Acting

    async def _start(self, work: _Work) -> None:
        command = work.command
        assert isinstance(command, StartSession | WakeSession)  # noqa: S101 - reconcile's promise

        above = current_traceparent()

        def heard(phase: Phase, message: str | None = None, *, ongoing: bool = False) -> None:
            elapsed = self._clock.monotonic() - work.began
            timing = PhaseTiming(
                phase=phase, elapsed_ms=round(elapsed * 1000, 1), message=message, ongoing=ongoing
            )
            if ongoing:
                work.words += 1
            else:
                since = work.phases[-1].elapsed_ms / 1000 if work.phases else 0.0
                past_span(f"phase {phase}", max(elapsed - since, 0), parent=above)
                work.phases.append(timing)
                metrics.PHASES.labels(phase=phase).observe(elapsed)
            work.tell(self._reporter.phase(command, self._now(), timing, work.words))

        await self._in_time(
            command, self._runtime.ensure_running(command.spec, command.generation, heard)
        )

    async def _hibernate(self, work: _Work) -> None:
        command = work.command
        assert isinstance(command, HibernateSession)  # noqa: S101 - reconcile's promise
        await self._in_time(
            command, self._runtime.ensure_hibernated(command.spec, command.generation)
        )

    async def _remove(self, work: _Work) -> None:
        command = work.command
        assert isinstance(command, StopSession)  # noqa: S101 - reconcile's promise
        await self._runtime.ensure_absent(
            command.session_id, command.generation, delete_home=command.delete_home
        )

    async def _in_time(self, command: AnyCommand, step: Awaitable[None]) -> None:
        left = command.deadline + self._leeway - self._now()
        try:
            async with asyncio.timeout(left.total_seconds()):
                await step
        except TimeoutError as error:
            raise PermanentFailure(
                Reason.DEADLINE_EXCEEDED, "It took longer than its deadline allowed."
            ) from error

    # Telling

    async def _tell_received(self, work: _Work) -> None:
        work.tell(self._reporter.received(work.command, self._now()))

    async def _tell_started(self, work: _Work) -> None:
        work.tell(self._reporter.started(work.command, self._now(), tuple(work.phases)))

    async def _tell_hibernated(self, work: _Work) -> None:
        work.tell(self._reporter.hibernated(work.command, self._now()))

    async def _tell_stopped(self, work: _Work) -> None:
        work.tell(self._reporter.stopped(work.command, self._now()))

    async def _tell_death(self, work: _Work) -> None:
        death = work.observed.death if work.observed else None
        reason = death.reason if death else Reason.DESKTOP_DIED
        message = death.message if death else ""
        work.tell(self._reporter.failed(work.command, self._now(), reason, message))

    async def _tell_expired(self, work: _Work) -> None:
        work.tell(self._reporter.expired(work.command, self._now()))

    async def _tell_superseded(self, work: _Work) -> None:
        newer = work.observed.generation if work.observed else work.command.generation
        work.tell(self._reporter.superseded(work.command, self._now(), newer))

    def _now(self) -> datetime:
        return self._clock.now()
