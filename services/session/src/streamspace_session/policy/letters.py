"""Which commands are dead letters, and what retrying one would mean now."""

from dataclasses import dataclass

from streamspace_common.contracts.dead_letters import DeadLetter, DeadLetterCause
from streamspace_common.contracts.sessions import (
    DesiredState,
    SessionCommandState,
    SessionState,
)
from streamspace_session.domain import Action, Change, Order, Tracked

_BROUGHT_UP = frozenset({Action.START, Action.WAKE})


@dataclass(frozen=True)
class StartAgain:
    """The failed session is started again, with a new command."""


@dataclass(frozen=True)
class SendAgain:
    """The same command is sent once more, as a new attempt."""


@dataclass(frozen=True)
class DeleteAgain:
    """The deletion that failed is asked for anew."""


@dataclass(frozen=True)
class CleanUpAgain:
    """What a failed session left behind is to be removed, as before."""


@dataclass(frozen=True)
class Refuse:
    """It makes no sense any more; `why` is for the operator."""

    why: str


Verdict = StartAgain | SendAgain | DeleteAgain | CleanUpAgain | Refuse


def given_up(change: Change) -> tuple[Order, DeadLetterCause] | None:
    """The command that a change has given up, where it had been sent at all."""
    was = change.before.order
    if not was.is_open or change.before.session.cluster_id is None:
        return None
    ended = change.after.order if change.replaced is None else change.replaced
    if ended.id != was.id:
        return None
    match ended.state:
        case SessionCommandState.EXPIRED:
            return ended, DeadLetterCause.GAVE_UP
        case SessionCommandState.FAILED:
            return ended, _cause(change)
        case _:
            return None


def _cause(change: Change) -> DeadLetterCause:
    by_agent = any(event.actor.id.startswith("agent:") for event in change.events)
    return DeadLetterCause.TERMINATED if by_agent else DeadLetterCause.GAVE_UP


def is_answered(letter: DeadLetter, tracked: Tracked) -> bool:
    """Whether the same command was sent once more meanwhile."""
    newest = tracked.order
    return letter.command_id == newest.id and (letter.attempt or 1) < newest.attempt


def is_outdated(letter: DeadLetter, tracked: Tracked) -> bool:
    """Whether a newer command of the session took its place: nobody needs it any more."""
    return (letter.generation or 0) < tracked.session.generation


def retry(letter: DeadLetter, tracked: Tracked) -> Verdict:
    """What to do so that the command gets its effect after all."""
    if letter.command_id is None or letter.action is None:
        return Refuse(
            "It could not be read, so it is no command that could be sent again. Discard it."
        )
    state, newest = tracked.state, tracked.order
    if state is SessionState.TERMINATED:
        return Refuse("The session has ended. Create another one, and discard this.")
    if state is SessionState.FAILED:
        return _after_failure(Action(letter.action), tracked)
    if letter.command_id == newest.id and newest.is_open:
        return SendAgain()
    return Refuse(
        f"The session is {state}, and its newest command is {newest.action} "
        f"(generation {newest.generation}), which counts instead. Discard this."
    )


def _after_failure(action: Action, tracked: Tracked) -> Verdict:
    if action in _BROUGHT_UP:
        return StartAgain()
    if action is Action.HIBERNATE:
        return Refuse(
            "The session failed when it could not be hibernated, and was removed. "
            "Retry its start, or create another one."
        )
    if tracked.session.desired is DesiredState.TERMINATED:
        return DeleteAgain()
    return CleanUpAgain()
