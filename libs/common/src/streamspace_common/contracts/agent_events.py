"""What agents saw or did: reports on one session and one generation of its commands."""

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator

from streamspace_common.contracts.event_base import AgentEvent
from streamspace_common.contracts.sessions import Phase, PhaseTiming, Reason

_PHASES = frozenset(Phase)


def _known(phases: Any) -> Any:
    """Without the phases that only newer agents know: a start counts whatever led to it."""
    if not isinstance(phases, list):
        return phases
    return [one for one in phases if not isinstance(one, dict) or one.get("phase") in _PHASES]


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
    phases: Annotated[tuple[PhaseTiming, ...], BeforeValidator(_known)] = ()


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
