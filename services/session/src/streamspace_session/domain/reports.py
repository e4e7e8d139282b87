"""What an agent's report makes of a session.

An agent speaks of one generation. A report of an older one is history: the command
it answers has been superseded, so it changes nothing. A report of a newer one than
we ever gave cannot be ours and is ignored too.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

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
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.sessions import (
    DesiredState,
    PhaseTiming,
    Reason,
    SessionCommandState,
    SessionState,
)
from streamspace_session.domain.machine import Trigger
from streamspace_session.domain.model import Action, Change, Order, Timing, Tracked
from streamspace_session.domain.moves import move, settled
from streamspace_session.domain.transitions import extend, fail, renumber

_BEGUN = {
    Action.START: Trigger.START_BEGUN,
    Action.WAKE: Trigger.WAKE_BEGUN,
    Action.HIBERNATE: Trigger.HIBERNATE_BEGUN,
    Action.STOP: Trigger.STOP_BEGUN,
}


def agent_actor(event: AgentEvent) -> Actor:
    return Actor(id=f"agent:{event.cluster_id}/{event.instance}")


def applies(tracked: Tracked, event: AgentEvent) -> bool:
    """Whether the report is about the session's newest command, from its own cluster."""
    return (
        event.generation == tracked.session.generation
        and event.cluster_id == tracked.session.cluster_id
    )


def report(tracked: Tracked, event: AgentEvent, *, now: datetime, timing: Timing) -> Change:
    """Apply one report; one that does not apply changes nothing.

    Raises:
        IllegalTransitionError: the report makes no sense in the session's state.
    """
    if not applies(tracked, event):
        return Change(tracked, tracked)
    return _APPLY[type(event)](tracked, event, now, timing)


def observed(tracked: Tracked, trigger: Trigger, *, now: datetime, timing: Timing) -> Change:
    """Apply what an inventory shows, which is a report without an event of its own."""
    done = {Trigger.STARTED: {Action.START, Action.WAKE}, Trigger.HIBERNATED: {Action.HIBERNATE}}
    order = tracked.order
    if order.action in done.get(trigger, set()):
        order = settled(order, SessionCommandState.COMPLETED, now)
    actor = Actor(id=f"agent:{tracked.session.cluster_id}/inventory")
    return move(tracked, trigger, now=now, timing=timing, actor=actor, order=order)


def _acknowledged(order: Order, now: datetime) -> Order:
    if order.state not in {SessionCommandState.PENDING, SessionCommandState.DELIVERED}:
        return order
    return replace(
        order,
        state=SessionCommandState.ACKNOWLEDGED,
        delivered_at=order.delivered_at or now,
        acknowledged_at=order.acknowledged_at or now,
    )


def _begun(tracked: Tracked, event: AgentEvent, now: datetime, timing: Timing) -> Change:
    return move(
        tracked,
        _BEGUN[tracked.order.action],
        now=now,
        timing=timing,
        actor=agent_actor(event),
        cause=event.id,
        order=_acknowledged(tracked.order, now),
    )


def _phase(tracked: Tracked, event: PhaseReached, now: datetime, timing: Timing) -> Change:
    change = _begun(tracked, event, now, timing)
    after = change.after
    phases = _with_phase(after.session.phases, event.timing)
    if after.state not in {SessionState.STARTING, SessionState.WAKING}:
        return change
    # A start that makes progress has not hung: its time counts from the last phase.
    session = after.session.model_copy(
        update={
            "phases": phases,
            "deadline": timing.deadline(after.state, now),
            "updated_at": now,
            "version": tracked.session.version + 1,
        }
    )
    events = tuple(e.model_copy(update={"session": session}) for e in change.events)
    return Change(tracked, replace(after, session=session), events)


def _with_phase(phases: Iterable[PhaseTiming], timing: PhaseTiming) -> tuple[PhaseTiming, ...]:
    """A phase told twice is kept once, as told last, in its first place."""
    known = {known.phase: known for known in phases}
    known[timing.phase] = timing
    return tuple(known.values())


def _started(tracked: Tracked, event: SessionStarted, now: datetime, timing: Timing) -> Change:
    return move(
        tracked,
        Trigger.STARTED,
        now=now,
        timing=timing,
        actor=agent_actor(event),
        cause=event.id,
        order=_completed(tracked.order, now),
        phases=event.phases or tracked.session.phases,
    )


def _hibernated(
    tracked: Tracked, event: SessionHibernated, now: datetime, timing: Timing
) -> Change:
    return _done(tracked, Trigger.HIBERNATED, event, now, timing)


def _done(
    tracked: Tracked, trigger: Trigger, event: AgentEvent, now: datetime, timing: Timing
) -> Change:
    """The order is carried out; why it was given stays with the session."""
    return move(
        tracked,
        trigger,
        now=now,
        timing=timing,
        actor=agent_actor(event),
        cause=event.id,
        order=_completed(tracked.order, now),
        reason=tracked.session.reason,
        message=tracked.session.message,
    )


def _completed(order: Order, now: datetime) -> Order:
    return settled(_acknowledged(order, now), SessionCommandState.COMPLETED, now)


def _stopped(tracked: Tracked, event: SessionStopped, now: datetime, timing: Timing) -> Change:
    if tracked.session.desired is DesiredState.TERMINATED:
        return _done(tracked, Trigger.STOPPED, event, now, timing)
    if tracked.state is SessionState.FAILED:
        return _done(tracked, Trigger.VANISHED, event, now, timing)
    return move(
        tracked,
        Trigger.VANISHED,
        now=now,
        timing=timing,
        actor=agent_actor(event),
        cause=event.id,
        reason=Reason.LOST,
        message="The session was removed on its cluster, though nobody asked for it here.",
        order=settled(tracked.order, SessionCommandState.FAILED, now),
    )


def _failed(tracked: Tracked, event: SessionFailed, now: datetime, timing: Timing) -> Change:
    if tracked.state is SessionState.TERMINATING:
        if tracked.order.attempt < timing.max_attempts:
            # The sweeper tries again soon; a person need not know of it yet.
            noted = replace(_acknowledged(tracked.order, now), error=event.message)
            soon = now + timing.retry_stop * tracked.order.attempt
            return extend(
                tracked, soon, now=now, order=noted, actor=agent_actor(event), cause=event.id
            )
        return fail(
            tracked,
            Reason.STOP_FAILED,
            event.message,
            actor=agent_actor(event),
            cause=event.id,
            now=now,
            timing=timing,
        )
    return fail(
        tracked,
        event.reason,
        event.message,
        actor=agent_actor(event),
        cause=event.id,
        now=now,
        timing=timing,
        clean_up=not tracked.state.is_final,
    )


def _expired(tracked: Tracked, event: CommandExpired, now: datetime, timing: Timing) -> Change:
    if tracked.order.action is Action.STOP:
        # A deletion never gets too old. Its deadline has it sent again.
        if tracked.state is SessionState.TERMINATING:
            return extend(tracked, now, now=now)
        return Change(tracked, tracked)
    message = (
        "The cluster's agent got the command after its deadline and did not carry it out. "
        "If the cluster was online all the time, compare its clock with the control plane's."
    )
    return fail(
        tracked,
        Reason.DEADLINE_EXCEEDED,
        message,
        actor=agent_actor(event),
        cause=event.id,
        now=now,
        timing=timing,
        order=settled(tracked.order, SessionCommandState.EXPIRED, now, error=message),
        clean_up=not tracked.state.is_final,
    )


def _superseded(
    tracked: Tracked, event: CommandSuperseded, now: datetime, timing: Timing
) -> Change:
    if event.newer_generation <= tracked.session.generation:
        return Change(tracked, tracked)
    return renumber(tracked, event.newer_generation, cause=event.id, now=now, timing=timing)


_APPLY: dict[type[AgentEvent], Callable[[Tracked, Any, datetime, Timing], Change]] = {
    CommandReceived: _begun,
    PhaseReached: _phase,
    SessionStarted: _started,
    SessionHibernated: _hibernated,
    SessionStopped: _stopped,
    SessionFailed: _failed,
    CommandExpired: _expired,
    CommandSuperseded: _superseded,
}
