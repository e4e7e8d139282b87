"""How a session is changed at all: follow the table, number commands, tell what happened.

`transitions` says what may be done to a session; this is how each of them does it.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

from streamspace_common.contracts.events import SessionCommandChanged, SessionStateChanged
from streamspace_common.contracts.identity import Actor, system_actor
from streamspace_common.contracts.ids import new_command_id, new_message_id
from streamspace_common.contracts.sessions import (
    Reason,
    Session,
    SessionCommandState,
    SessionState,
)
from streamspace_session.domain.machine import Trigger, next_state
from streamspace_session.domain.model import Action, Change, Order, Timing, Tracked

SYSTEM = system_actor("session")


def next_order(
    tracked: Tracked,
    action: Action,
    *,
    actor: Actor,
    now: datetime,
    deadline: datetime,
    delete_home: bool = False,
) -> Order:
    """A new command with the session's next generation."""
    return Order(
        id=new_command_id(),
        session_id=tracked.session.id,
        generation=tracked.session.generation + 1,
        action=action,
        actor=actor,
        created_at=now,
        issued_at=now,
        deadline=deadline,
        delete_home=delete_home,
    )


def settled(
    order: Order, state: SessionCommandState, now: datetime, *, error: str | None = None
) -> Order:
    """The command at the end of its life; one that has ended before stays as it was."""
    if not order.is_open:
        return order
    return replace(order, state=state, completed_at=now, error=error)


def move(
    tracked: Tracked,
    trigger: Trigger,
    *,
    now: datetime,
    timing: Timing,
    actor: Actor,
    cause: str | None = None,
    reason: Reason | None = None,
    message: str | None = None,
    order: Order | None = None,
    replaced: Order | None = None,
    **fields: Any,
) -> Change:
    """Follow the table; tell of it when the state is another one than before.

    Raises:
        IllegalTransitionError: the table has no such pair.
    """
    state = next_state(tracked.state, trigger)
    order = order or tracked.order
    if state is tracked.state:
        return with_order(
            tracked, order, now=now, actor=actor, cause=cause, replaced=replaced, **fields
        )
    replaced = replaced or _replaced(tracked.order, order, now)
    updates = {
        **fields,
        **_on_entering(state, tracked.session, now),
        "state": state,
        "reason": reason,
        "message": message,
        "deadline": timing.deadline(state, now),
        "generation": order.generation,
        "updated_at": now,
        "version": tracked.session.version + 1,
    }
    session = tracked.session.model_copy(update=updates)
    after = replace(tracked, session=session, order=order, since=now)
    told = SessionStateChanged(
        id=str(new_message_id()),
        at=now,
        actor=actor,
        cause=cause,
        session_id=session.id,
        owner_id=session.owner.user_id,
        from_state=tracked.state,
        to_state=state,
        desired=session.desired,
        reason=reason,
        message=message,
        generation=session.generation,
        command_id=order.id,
        session=session,
        command=order.view(),
        replaced=replaced.view() if replaced is not None else None,
    )
    return Change(tracked, after, (told,), replaced)


def _on_entering(state: SessionState, session: Session, now: datetime) -> dict[str, Any]:
    match state:
        case SessionState.RUNNING if session.state is SessionState.UNKNOWN:
            # It ran all the time: nothing was started, and nobody has just been active.
            return {
                "started_at": session.started_at or now,
                "last_activity_at": session.last_activity_at or now,
            }
        case SessionState.RUNNING:
            return {"started_at": session.started_at or now, "last_activity_at": now}
        case SessionState.TERMINATED:
            return {"terminated_at": now}
        case _:
            return {}


def with_order(
    tracked: Tracked,
    order: Order,
    *,
    now: datetime,
    actor: Actor = SYSTEM,
    cause: str | None = None,
    replaced: Order | None = None,
    **fields: Any,
) -> Change:
    """The session with this command and these fields, its state as it was.

    It is told where it is a change of the command.
    """
    changed = {name: value for name, value in fields.items() if _differs(tracked, name, value)}
    if order == tracked.order and not changed:
        return Change(tracked, tracked)
    session = tracked.session.model_copy(
        update={
            **changed,
            "generation": order.generation,
            "updated_at": now,
            "version": tracked.session.version + 1,
        }
    )
    after = replace(tracked, session=session, order=order)
    replaced = replaced or _replaced(tracked.order, order, now)
    if order == tracked.order:
        return Change(tracked, after)
    return Change(
        tracked, after, (command_told(after, replaced, now, actor=actor, cause=cause),), replaced
    )


def command_told(
    after: Tracked, replaced: Order | None, now: datetime, *, actor: Actor, cause: str | None
) -> SessionCommandChanged:
    """The event of a command whose life went on while its session's state stayed."""
    return SessionCommandChanged(
        id=str(new_message_id()),
        at=now,
        actor=actor,
        cause=cause,
        session_id=after.session.id,
        owner_id=after.session.owner.user_id,
        command=after.order.view(),
        replaced=replaced.view() if replaced is not None else None,
        session=after.session,
    )


def _replaced(was: Order, order: Order, now: datetime) -> Order | None:
    """The older command, when there is a newer one now: what it would have done is void."""
    if was.generation == order.generation:
        return None
    if not was.is_open:
        return was
    return replace(settled(was, SessionCommandState.SUPERSEDED, now), superseded_by=order.id)


def _differs(tracked: Tracked, name: str, value: object) -> bool:
    return bool(getattr(tracked.session, name) != value)
