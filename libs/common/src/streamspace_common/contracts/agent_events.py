"""What agents saw or did: reports on one session and one generation of its commands."""

from typing import ClassVar

from streamspace_common.contracts.event_base import AgentEvent
from streamspace_common.contracts.sessions import PhaseTiming, Reason


class CommandReceived(AgentEvent):
    """An agent has taken the command and begins."""

    TYPE: ClassVar[str] = "session.command-received.v1"
    KIND: ClassVar[str] = "command_received"


class PhaseReached(AgentEvent):
    TYPE: ClassVar[str] = "session.phase-reached.v1"
    KIND: ClassVar[str] = "phase_reached"
    timing: PhaseTiming


class SessionStarted(AgentEvent):
    """The desktop answers; the session can be viewed. Follows a start and a wake."""

    TYPE: ClassVar[str] = "session.started.v1"
    KIND: ClassVar[str] = "started"
    phases: tuple[PhaseTiming, ...] = ()


class SessionHibernated(AgentEvent):
    TYPE: ClassVar[str] = "session.hibernated.v1"
    KIND: ClassVar[str] = "hibernated"


class SessionStopped(AgentEvent):
    """Nothing of the session is left but, perhaps, its home."""

    TYPE: ClassVar[str] = "session.stopped.v1"
    KIND: ClassVar[str] = "stopped"


class SessionFailed(AgentEvent):
    """A command gave up for good, or the desktop died by itself (`desktop-died`)."""

    TYPE: ClassVar[str] = "session.failed.v1"
    KIND: ClassVar[str] = "failed"
    reason: Reason
    message: str


class CommandExpired(AgentEvent):
    """The command arrived after its deadline and was not carried out."""

    TYPE: ClassVar[str] = "session.command-expired.v1"
    KIND: ClassVar[str] = "command_expired"


class CommandSuperseded(AgentEvent):
    """A newer generation was already known; the command was not carried out."""

    TYPE: ClassVar[str] = "session.command-superseded.v1"
    KIND: ClassVar[str] = "command_superseded"
    newer_generation: int


AGENT_EVENTS: tuple[type[AgentEvent], ...] = (
    CommandReceived,
    PhaseReached,
    SessionStarted,
    SessionHibernated,
    SessionStopped,
    SessionFailed,
    CommandExpired,
    CommandSuperseded,
)
