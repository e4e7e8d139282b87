"""The events of an agent, made from what happened: pure but for the time that is passed in.

An event's id is derived from what it tells, so telling it again after a crash stores it
once: `<session>.<command>.<attempt>.<kind>[.<phase>[.<number>]]` for what a command caused, and
`<session>.<generation>.died.<incarnation>` for a desktop that ended by itself. Whoever could
guess an id could have the event dropped as one that is there already: the session's and the
command's random parts together are more than one can try.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamspace_agent.domain import Death, Observed
from streamspace_common.contracts.commands import (
    HibernateSession,
    StartSession,
    StopSession,
    WakeSession,
)
from streamspace_common.contracts.events import (
    AgentEvent,
    CommandExpired,
    CommandReceived,
    CommandSuperseded,
    PhaseReached,
    SessionFailed,
    SessionHibernated,
    SessionStarted,
    SessionStopped,
)
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.sessions import PhaseTiming, Reason

AnyCommand = StartSession | StopSession | HibernateSession | WakeSession

_MESSAGE_LENGTH = 1000


@dataclass(frozen=True)
class Reporter:
    """Speaks for one agent."""

    cluster: ClusterId
    instance: str

    def received(self, command: AnyCommand, at: datetime) -> AgentEvent:
        return CommandReceived(**self._of(command, at, CommandReceived.KIND))

    def phase(
        self, command: AnyCommand, at: datetime, timing: PhaseTiming, number: int = 0
    ) -> AgentEvent:
        """A phase that was reached, or the `number`th word of one that goes on."""
        kind = f"{PhaseReached.KIND}.{timing.phase}" + (f".{number}" if timing.ongoing else "")
        return PhaseReached(**self._of(command, at, kind), timing=timing)

    def started(
        self, command: AnyCommand, at: datetime, phases: tuple[PhaseTiming, ...]
    ) -> AgentEvent:
        return SessionStarted(**self._of(command, at, SessionStarted.KIND), phases=phases)

    def hibernated(self, command: AnyCommand, at: datetime) -> AgentEvent:
        return SessionHibernated(**self._of(command, at, SessionHibernated.KIND))

    def stopped(self, command: AnyCommand, at: datetime) -> AgentEvent:
        return SessionStopped(**self._of(command, at, SessionStopped.KIND))

    def failed(self, command: AnyCommand, at: datetime, reason: Reason, message: str) -> AgentEvent:
        return SessionFailed(
            **self._of(command, at, SessionFailed.KIND),
            reason=reason,
            message=message[:_MESSAGE_LENGTH],
        )

    def expired(self, command: AnyCommand, at: datetime) -> AgentEvent:
        return CommandExpired(**self._of(command, at, CommandExpired.KIND))

    def superseded(self, command: AnyCommand, at: datetime, newer: int) -> AgentEvent:
        return CommandSuperseded(
            **self._of(command, at, CommandSuperseded.KIND), newer_generation=newer
        )

    def died(self, observed: Observed, death: Death, at: datetime) -> AgentEvent:
        return SessionFailed(
            id=f"{observed.session_id}.{observed.generation}.died.{death.incarnation}",
            at=at,
            cluster_id=self.cluster,
            instance=self.instance,
            session_id=observed.session_id,
            generation=observed.generation,
            reason=death.reason,
            message=death.message[:_MESSAGE_LENGTH],
        )

    def _of(self, command: AnyCommand, at: datetime, kind: str) -> dict[str, Any]:
        return {
            "id": f"{command.session_id}.{command.command_id}.{command.attempt}.{kind}",
            "at": at,
            "cluster_id": self.cluster,
            "instance": self.instance,
            "session_id": command.session_id,
            "generation": command.generation,
            "command_id": command.command_id,
        }
