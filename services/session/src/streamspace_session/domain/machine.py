"""The life of a session as one table.

`TRANSITIONS` maps every legal pair of (state, what happened) to the next state. A
pair that is not there is illegal and raises. Reports may come late or twice, so the
table says explicitly where a trigger changes nothing: a session that runs already
stays running when it is told so again.

Whether a user may ask for something is read from the same table: asking to wake a
running session is refused because (running, wake) is not in it.
"""

from enum import StrEnum

from streamspace_common.contracts.sessions import SessionState

_S = SessionState


class Trigger(StrEnum):
    """What can happen to a session."""

    START_BEGUN = "start-begun"
    """An agent works on bringing it up from nothing."""
    WAKE_BEGUN = "wake-begun"
    HIBERNATE_BEGUN = "hibernate-begun"
    STOP_BEGUN = "stop-begun"
    STARTED = "started"
    """The desktop answers."""
    HIBERNATED = "hibernated"
    STOPPED = "stopped"
    """A deletion that was asked for is done."""
    VANISHED = "vanished"
    """Nothing is left of it though nobody asked for a deletion."""
    FAILED = "failed"
    HIBERNATE = "hibernate"
    WAKE = "wake"
    DELETE = "delete"
    DELETE_UNPLACED = "delete-unplaced"
    """Deletion of a session that no cluster has ever heard of."""
    RESTART = "restart"
    """Its resources are missing; it is brought up again."""
    RETRY = "retry"
    """An operator has it started again after it failed."""
    LOST_SIGHT = "lost-sight"
    """Its cluster has been silent for too long."""
    GIVEN_UP = "given-up"
    """Its deletion cannot be confirmed; what is left is removed when the agent returns."""


TRANSITIONS: dict[tuple[SessionState, Trigger], SessionState] = {
    # Accepted; no agent has begun.
    (_S.PENDING, Trigger.START_BEGUN): _S.STARTING,
    (_S.PENDING, Trigger.STARTED): _S.RUNNING,
    (_S.PENDING, Trigger.VANISHED): _S.FAILED,
    (_S.PENDING, Trigger.FAILED): _S.FAILED,
    (_S.PENDING, Trigger.DELETE): _S.TERMINATING,
    (_S.PENDING, Trigger.DELETE_UNPLACED): _S.TERMINATED,
    # Coming up from nothing.
    (_S.STARTING, Trigger.START_BEGUN): _S.STARTING,
    (_S.STARTING, Trigger.STARTED): _S.RUNNING,
    (_S.STARTING, Trigger.VANISHED): _S.FAILED,
    (_S.STARTING, Trigger.FAILED): _S.FAILED,
    (_S.STARTING, Trigger.DELETE): _S.TERMINATING,
    (_S.STARTING, Trigger.LOST_SIGHT): _S.UNKNOWN,
    # In use. Late reports of the start change nothing.
    (_S.RUNNING, Trigger.START_BEGUN): _S.RUNNING,
    (_S.RUNNING, Trigger.WAKE_BEGUN): _S.RUNNING,
    (_S.RUNNING, Trigger.STARTED): _S.RUNNING,
    (_S.RUNNING, Trigger.VANISHED): _S.FAILED,
    (_S.RUNNING, Trigger.FAILED): _S.FAILED,
    (_S.RUNNING, Trigger.HIBERNATE): _S.HIBERNATING,
    (_S.RUNNING, Trigger.DELETE): _S.TERMINATING,
    (_S.RUNNING, Trigger.RESTART): _S.STARTING,
    (_S.RUNNING, Trigger.LOST_SIGHT): _S.UNKNOWN,
    # Going to rest.
    (_S.HIBERNATING, Trigger.HIBERNATE_BEGUN): _S.HIBERNATING,
    (_S.HIBERNATING, Trigger.HIBERNATED): _S.HIBERNATED,
    (_S.HIBERNATING, Trigger.VANISHED): _S.FAILED,
    (_S.HIBERNATING, Trigger.FAILED): _S.FAILED,
    (_S.HIBERNATING, Trigger.DELETE): _S.TERMINATING,
    (_S.HIBERNATING, Trigger.LOST_SIGHT): _S.UNKNOWN,
    # At rest: nothing runs, so a silent agent changes nothing.
    (_S.HIBERNATED, Trigger.HIBERNATE_BEGUN): _S.HIBERNATED,
    (_S.HIBERNATED, Trigger.HIBERNATED): _S.HIBERNATED,
    (_S.HIBERNATED, Trigger.VANISHED): _S.FAILED,
    (_S.HIBERNATED, Trigger.FAILED): _S.FAILED,
    (_S.HIBERNATED, Trigger.WAKE): _S.WAKING,
    (_S.HIBERNATED, Trigger.DELETE): _S.TERMINATING,
    # Coming back from rest.
    (_S.WAKING, Trigger.WAKE_BEGUN): _S.WAKING,
    (_S.WAKING, Trigger.STARTED): _S.RUNNING,
    (_S.WAKING, Trigger.VANISHED): _S.FAILED,
    (_S.WAKING, Trigger.FAILED): _S.FAILED,
    (_S.WAKING, Trigger.DELETE): _S.TERMINATING,
    (_S.WAKING, Trigger.LOST_SIGHT): _S.UNKNOWN,
    # Being removed: a second deletion changes nothing.
    (_S.TERMINATING, Trigger.STOP_BEGUN): _S.TERMINATING,
    (_S.TERMINATING, Trigger.STOPPED): _S.TERMINATED,
    (_S.TERMINATING, Trigger.FAILED): _S.FAILED,
    (_S.TERMINATING, Trigger.GIVEN_UP): _S.TERMINATED,
    (_S.TERMINATING, Trigger.DELETE): _S.TERMINATING,
    # History.
    (_S.TERMINATED, Trigger.STOP_BEGUN): _S.TERMINATED,
    (_S.TERMINATED, Trigger.STOPPED): _S.TERMINATED,
    (_S.TERMINATED, Trigger.FAILED): _S.TERMINATED,
    (_S.TERMINATED, Trigger.DELETE): _S.TERMINATED,
    # Failed: what was left is being removed, which does not make it less failed,
    # unless the user has asked for the deletion.
    (_S.FAILED, Trigger.STOP_BEGUN): _S.FAILED,
    (_S.FAILED, Trigger.VANISHED): _S.FAILED,
    (_S.FAILED, Trigger.FAILED): _S.FAILED,
    (_S.FAILED, Trigger.STOPPED): _S.TERMINATED,
    (_S.FAILED, Trigger.DELETE): _S.TERMINATING,
    (_S.FAILED, Trigger.DELETE_UNPLACED): _S.TERMINATED,
    (_S.FAILED, Trigger.RETRY): _S.PENDING,
    # Out of sight: every true report brings it back to the truth.
    (_S.UNKNOWN, Trigger.START_BEGUN): _S.STARTING,
    (_S.UNKNOWN, Trigger.WAKE_BEGUN): _S.WAKING,
    (_S.UNKNOWN, Trigger.HIBERNATE_BEGUN): _S.HIBERNATING,
    (_S.UNKNOWN, Trigger.STARTED): _S.RUNNING,
    (_S.UNKNOWN, Trigger.HIBERNATED): _S.HIBERNATED,
    (_S.UNKNOWN, Trigger.VANISHED): _S.FAILED,
    (_S.UNKNOWN, Trigger.FAILED): _S.FAILED,
    (_S.UNKNOWN, Trigger.DELETE): _S.TERMINATING,
    (_S.UNKNOWN, Trigger.RESTART): _S.STARTING,
    (_S.UNKNOWN, Trigger.LOST_SIGHT): _S.UNKNOWN,
}


class IllegalTransitionError(Exception):
    """The table has no such pair."""

    def __init__(self, state: SessionState, trigger: Trigger) -> None:
        super().__init__(f"a {state} session cannot take {trigger!r}")
        self.state = state
        self.trigger = trigger


def allows(state: SessionState, trigger: Trigger) -> bool:
    """Whether the table has a next state for this pair."""
    return (state, trigger) in TRANSITIONS


def next_state(state: SessionState, trigger: Trigger) -> SessionState:
    """The state that follows.

    Raises:
        IllegalTransitionError: the pair is not in the table.
    """
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise IllegalTransitionError(state, trigger) from None
