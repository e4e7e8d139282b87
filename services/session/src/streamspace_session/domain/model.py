"""The values the domain computes with: a tracked session, its newest command, a change.

A `Tracked` session is what everybody may see of it (the contract `Session`) plus what
only the control plane needs. All of it is frozen: the functions of `transitions`
take one and return a `Change` that says what it became and what to tell the world.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from streamspace_common.contracts.events import CoreEvent
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId
from streamspace_common.contracts.sessions import (
    CommandAttempt,
    Session,
    SessionCommand,
    SessionCommandState,
    SessionState,
)


class Action(StrEnum):
    """What a command asks of an agent; the `action` of the command contracts."""

    START = "start_session"
    STOP = "stop_session"
    HIBERNATE = "hibernate_session"
    WAKE = "wake_session"


OPEN_COMMAND_STATES = frozenset(
    {
        SessionCommandState.PENDING,
        SessionCommandState.DELIVERED,
        SessionCommandState.ACKNOWLEDGED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One command of a session and where its life stands.

    `issued_at`, `delivered_at` and `acknowledged_at` are the current attempt's, `earlier`
    are the attempts before it; `created_at` is when the first was sent.
    """

    id: CommandId
    session_id: SessionId
    generation: int
    action: Action
    actor: Actor
    created_at: datetime
    issued_at: datetime
    deadline: datetime
    state: SessionCommandState = SessionCommandState.PENDING
    attempt: int = 1
    delete_home: bool = False
    error: str | None = None
    delivered_at: datetime | None = None
    acknowledged_at: datetime | None = None
    completed_at: datetime | None = None
    superseded_by: CommandId | None = None
    earlier: tuple[CommandAttempt, ...] = ()

    @property
    def is_open(self) -> bool:
        """Its effect is still to come."""
        return self.state in OPEN_COMMAND_STATES

    @property
    def attempts(self) -> tuple[CommandAttempt, ...]:
        """Every sending so far, the newest last."""
        current = CommandAttempt(
            attempt=self.attempt,
            issued_at=self.issued_at,
            delivered_at=self.delivered_at,
            acknowledged_at=self.acknowledged_at,
            error=self.error,
        )
        return (*self.earlier, current)

    def view(self) -> SessionCommand:
        """As the API shows it."""
        return SessionCommand(
            id=self.id,
            session_id=self.session_id,
            generation=self.generation,
            action=self.action,
            state=self.state,
            attempt=self.attempt,
            actor=self.actor,
            error=self.error,
            created_at=self.created_at,
            issued_at=self.issued_at,
            delivered_at=self.delivered_at,
            acknowledged_at=self.acknowledged_at,
            completed_at=self.completed_at,
            deadline=self.deadline,
            superseded_by=self.superseded_by,
            attempts=self.attempts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """A session as the control plane keeps it.

    `since` is when it entered its state; `restarts` counts how often it was brought
    up again because its resources were missing; `wanted_cluster` is the cluster the
    user insisted on.
    """

    session: Session
    order: Order
    since: datetime
    cpu_milli: int
    memory_bytes: int
    restarts: int = 0
    wanted_cluster: ClusterId | None = None

    @property
    def state(self) -> SessionState:
        return self.session.state


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a session, and the events that tell of it."""

    before: Tracked
    after: Tracked
    events: tuple[CoreEvent, ...] = ()
    replaced: Order | None = None
    """The command that a newer one took the place of, as it ended."""
    trace: str | None = None
    """The `traceparent` it belongs to, where changes of several traces are carried out at once."""

    @property
    def is_empty(self) -> bool:
        """Nothing happened; there is nothing to keep and nothing to tell."""
        return self.after is self.before

    def then(self, later: "Change") -> "tuple[Change, ...]":
        """This change and the next of the same session, as few as tell everything.

        They become one unless a command was replaced in between, which each has to tell.
        """
        if (
            self.after.order.generation != self.before.order.generation
            or later.replaced is not None
        ):
            return self, later
        return (replace(later, before=self.before, events=(*self.events, *later.events)),)

    @property
    def sends_command(self) -> bool:
        """The newest command is new, or a new attempt, and there is a cluster to take it."""
        was, now = self.before.order, self.after.order
        placed = self.before.session.cluster_id != self.after.session.cluster_id
        return self.after.session.cluster_id is not None and (
            placed or (was.generation, was.attempt) != (now.generation, now.attempt)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long each state that must end may last, and how often a command is tried."""

    pending: timedelta = timedelta(minutes=10)
    starting: timedelta = timedelta(minutes=5)
    hibernating: timedelta = timedelta(minutes=1)
    waking: timedelta = timedelta(minutes=5)
    terminating: timedelta = timedelta(minutes=1)
    unknown: timedelta = timedelta(days=7)
    offline_stop: timedelta = timedelta(minutes=10)
    """A deletion whose cluster is silent counts as done after this."""
    retry_stop: timedelta = timedelta(seconds=5)
    """Pause before a stop that an agent could not carry out is sent again."""
    command_life: timedelta = timedelta(days=7)
    """How long a stop or hibernate stays valid: as long as the stream keeps it."""
    max_attempts: int = 3
    max_restarts: int = 2

    def limit(self, state: SessionState) -> timedelta | None:
        """How long a session may be in `state`; None where it may stay."""
        return {
            SessionState.PENDING: self.pending,
            SessionState.STARTING: self.starting,
            SessionState.HIBERNATING: self.hibernating,
            SessionState.WAKING: self.waking,
            SessionState.TERMINATING: self.terminating,
            SessionState.UNKNOWN: self.unknown,
        }.get(state)

    def deadline(self, state: SessionState, now: datetime) -> datetime | None:
        limit = self.limit(state)
        return None if limit is None else now + limit
