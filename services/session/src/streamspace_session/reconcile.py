"""Compares what an agent holds with what the database says, and decides what to do.

An inventory is a snapshot that travels: it may be older than what we have heard
since. So sessions the agent is working on, and sessions that have just changed, are
left alone; the next inventory settles them. So is what it shows of a generation whose
successor we know to have been carried out a moment ago. What is wrong and stays wrong is put
right: unknown resources are stopped, missing ones brought up again or failed, dead
ones failed, and sessions that were out of sight return to the truth.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from streamspace_common.contracts.clusters import Inventory, ResourceReport, ResourceState
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.contracts.sessions import (
    DesiredState,
    SessionCommandState,
    SessionState,
)
from streamspace_session.domain import Action, Timing, Tracked, Trigger


@dataclass(frozen=True)
class StopStranger:
    """A resource that belongs to no session of this cluster."""

    session_id: SessionId
    generation: int


@dataclass(frozen=True)
class StopLeftover:
    """A resource of a session that has ended."""

    session_id: SessionId


@dataclass(frozen=True)
class Observe:
    """The inventory shows what no event has told us."""

    session_id: SessionId
    trigger: Trigger


@dataclass(frozen=True)
class SendAgain:
    """The newest command has had no effect."""

    session_id: SessionId


@dataclass(frozen=True)
class Restart:
    """Nothing is left of a session that ought to run."""

    session_id: SessionId


@dataclass(frozen=True)
class Lost:
    """Nothing is left, and it was brought up again often enough."""

    session_id: SessionId


@dataclass(frozen=True)
class Died:
    """Its processes have ended by themselves."""

    session_id: SessionId


Decision = StopStranger | StopLeftover | Observe | SendAgain | Restart | Lost | Died

_OLDEST = timedelta(minutes=2)
"""How long an inventory may have been on its way: through an outage, in a queue of ours."""

_ALIVE_FOR_US = frozenset(
    {
        SessionState.PENDING,
        SessionState.STARTING,
        SessionState.RUNNING,
        SessionState.WAKING,
        SessionState.UNKNOWN,
    }
)


def compare(
    cluster: ClusterId,
    inventory: Inventory,
    sessions: Mapping[SessionId, Tracked],
    now: datetime,
    *,
    grace: timedelta,
    timing: Timing,
) -> list[Decision]:
    """Decide on everything the inventory shows and on everything it lacks.

    Args:
        cluster: whose inventory it is, proven by the subject it came on.
        inventory: what one of its agents holds.
        sessions: every session of this cluster that has not ended, and every session
            the inventory names, whatever its cluster and state.
        now: the database's clock.
        grace: sessions that changed more recently than this are left alone.
        timing: for the number of restarts and attempts.
    """
    busy = frozenset(inventory.busy)
    shown = {resource.session_id: resource for resource in inventory.resources}
    decisions: list[Decision] = []
    for session_id, resource in shown.items():
        if session_id in busy:
            continue
        tracked = sessions.get(session_id)
        if tracked is None or tracked.session.cluster_id != cluster:
            decisions.append(StopStranger(session_id, resource.generation))
        elif _settled(tracked, now, grace) and not _outdated(tracked, resource, now):
            decisions.extend(_shown(tracked, resource))
    for session_id, tracked in sessions.items():
        missing = session_id not in shown and session_id not in busy
        if missing and tracked.session.cluster_id == cluster and _settled(tracked, now, grace):
            decisions.extend(_missing(tracked, timing))
    return decisions


def _settled(tracked: Tracked, now: datetime, grace: timedelta) -> bool:
    """Whether an inventory that has just come can know better than we do."""
    if tracked.state is SessionState.UNKNOWN:
        return True
    return now - max(tracked.since, tracked.order.issued_at) >= grace


def _outdated(tracked: Tracked, resource: ResourceReport, now: datetime) -> bool:
    """Whether the agent had not yet carried out what it has told us since.

    Not for ever: an agent whose own memory was put back to an older state is right. And not
    of a session that has ended: one stop too many is better than one that comes too late.
    """
    order = tracked.order
    return (
        not tracked.state.is_final
        and resource.generation < order.generation
        and order.state is SessionCommandState.COMPLETED
        and order.completed_at is not None
        and now - order.completed_at < _OLDEST
    )


def _shown(tracked: Tracked, resource: ResourceReport) -> Iterator[Decision]:
    session_id, state = tracked.session.id, tracked.state
    current = resource.generation >= tracked.session.generation
    if state.is_final:
        yield StopLeftover(session_id)
        return
    match resource.state:
        case ResourceState.DEAD if state in _ALIVE_FOR_US:
            yield Died(session_id)
        case ResourceState.RUNNING if _wants(tracked, DesiredState.RUNNING):
            # Woken by an older generation than asked for means: not yet woken.
            if state is not SessionState.RUNNING and (current or not tracked.order.is_open):
                yield Observe(session_id, Trigger.STARTED)
        case ResourceState.RUNNING if state is SessionState.UNKNOWN:
            yield Observe(session_id, Trigger.HIBERNATE_BEGUN)
        case ResourceState.STARTING if state is SessionState.UNKNOWN:
            yield Observe(session_id, _begun(tracked))
        case ResourceState.HIBERNATED if _wants(tracked, DesiredState.HIBERNATED):
            if state is not SessionState.HIBERNATED:
                yield Observe(session_id, Trigger.HIBERNATED)
        case ResourceState.HIBERNATED if state is SessionState.UNKNOWN:
            yield Observe(session_id, _begun(tracked))
        case _:
            return


def _missing(tracked: Tracked, timing: Timing) -> Iterator[Decision]:
    session_id = tracked.session.id
    match tracked.state:
        case SessionState.RUNNING:
            yield _again(tracked, timing)
        case SessionState.UNKNOWN if tracked.session.desired is DesiredState.HIBERNATED:
            # A session at rest is a home and nothing else; there is nothing to show.
            yield Observe(session_id, Trigger.HIBERNATED)
        case SessionState.UNKNOWN if tracked.order.is_open:
            # The agent was gone before it took the command, which still waits for it.
            yield Observe(session_id, _begun(tracked))
        case SessionState.UNKNOWN:
            yield _again(tracked, timing)
        case SessionState.STARTING | SessionState.WAKING:
            spent = tracked.order.attempt >= timing.max_attempts
            yield Lost(session_id) if spent else SendAgain(session_id)
        case _:
            return


def _again(tracked: Tracked, timing: Timing) -> Decision:
    if tracked.restarts >= timing.max_restarts:
        return Lost(tracked.session.id)
    return Restart(tracked.session.id)


def _wants(tracked: Tracked, desired: DesiredState) -> bool:
    return tracked.session.desired is desired


def _begun(tracked: Tracked) -> Trigger:
    return {
        Action.START: Trigger.START_BEGUN,
        Action.WAKE: Trigger.WAKE_BEGUN,
        Action.HIBERNATE: Trigger.HIBERNATE_BEGUN,
    }.get(tracked.order.action, Trigger.START_BEGUN)


def named(inventory: Inventory) -> Sequence[SessionId]:
    """Every session the inventory speaks of."""
    return [resource.session_id for resource in inventory.resources]
