"""What to do about a command, given what is there: pure, so that it can be read and tested.

The rules, first match wins:

1. A generation lower than the one written on the resource: the last word was spoken
   already. Tell so, do nothing.
2. Past its deadline: tell so, do nothing. Except for a stop, which is carried out
   however late it comes: nobody wants what it removes, and nobody else removes it.
3. The same generation, and what it asked for is so: tell the result once more, for the
   one who asks again has not heard it.
4. The same generation, and the desktop has died since it was started: tell of the
   death. A start is not repeated behind the user's back.
5. Else: act, then tell the result.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from streamspace_agent.domain import Observed
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState


class Action(StrEnum):
    """One step of an answer to a command, carried out by `handlers`."""

    TELL_RECEIVED = "tell_received"
    START = "start"
    HIBERNATE = "hibernate"
    REMOVE = "remove"
    TELL_STARTED = "tell_started"
    TELL_HIBERNATED = "tell_hibernated"
    TELL_STOPPED = "tell_stopped"
    TELL_DEATH = "tell_death"
    TELL_EXPIRED = "tell_expired"
    TELL_SUPERSEDED = "tell_superseded"


@dataclass(frozen=True)
class Desired:
    """What a command wants of one session, and until when."""

    session_id: SessionId
    generation: int
    state: DesiredState
    deadline: datetime


_ACT = {
    DesiredState.RUNNING: Action.START,
    DesiredState.HIBERNATED: Action.HIBERNATE,
    DesiredState.TERMINATED: Action.REMOVE,
}
_TELL = {
    DesiredState.RUNNING: Action.TELL_STARTED,
    DesiredState.HIBERNATED: Action.TELL_HIBERNATED,
    DesiredState.TERMINATED: Action.TELL_STOPPED,
}
# A removal is missing here on purpose: the generation is written before the work, so
# an absent resource may be one whose removal was cut short; repeating it is cheap.
_REACHED_BY = {
    DesiredState.RUNNING: ResourceState.RUNNING,
    DesiredState.HIBERNATED: ResourceState.HIBERNATED,
}


def reconcile(desired: Desired, observed: Observed | None, now: datetime) -> tuple[Action, ...]:
    """The steps that answer a command, in order.

    Args:
        desired: what the command wants.
        observed: the session's resource, None when it was never heard of.
        now: the moment to hold the deadline against.
    """
    if observed is not None and desired.generation < observed.generation:
        return (Action.TELL_SUPERSEDED,)
    if now > desired.deadline and desired.state is not DesiredState.TERMINATED:
        return (Action.TELL_EXPIRED,)
    tell = _TELL[desired.state]
    if observed is not None and desired.generation == observed.generation:
        if observed.state is not None and observed.state is _REACHED_BY.get(desired.state):
            return (Action.TELL_RECEIVED, tell)
        if desired.state is DesiredState.RUNNING and observed.state is ResourceState.DEAD:
            return (Action.TELL_RECEIVED, Action.TELL_DEATH)
    return (Action.TELL_RECEIVED, _ACT[desired.state], tell)
