"""What users and the control plane do to a session, as functions.

Each takes a tracked session and returns the `Change`: what it became, with the
events that tell of it and, where its newest command is new or tried again, a command
to send. Nothing here waits, reads a clock or knows a database.

Two rules hold throughout. A new command takes the next generation, so whatever the
older one still causes is ignored. And a session that fails is sent a stop, so a
failed session leaves nothing behind, even when its agent comes back days later.
"""

from dataclasses import replace
from datetime import datetime

from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.sessions import (
    DesiredState,
    Reason,
    SessionCommandState,
    SessionState,
)
from streamspace_session.domain.machine import Trigger
from streamspace_session.domain.model import Action, Change, Order, Timing, Tracked
from streamspace_session.domain.moves import (
    SYSTEM,
    command_told,
    move,
    next_order,
    settled,
    with_order,
)


def hibernate(
    tracked: Tracked,
    *,
    actor: Actor,
    cause: str | None = None,
    now: datetime,
    timing: Timing,
    reason: Reason = Reason.USER,
    message: str | None = None,
) -> Change:
    """Stop what runs and keep the home.

    Raises:
        IllegalTransitionError: it is not running.
    """
    order = next_order(
        tracked, Action.HIBERNATE, actor=actor, now=now, deadline=now + timing.command_life
    )
    return move(
        tracked,
        Trigger.HIBERNATE,
        now=now,
        timing=timing,
        actor=actor,
        cause=cause,
        reason=reason,
        message=message,
        order=order,
        desired=DesiredState.HIBERNATED,
    )


def wake(
    tracked: Tracked, *, actor: Actor, cause: str | None = None, now: datetime, timing: Timing
) -> Change:
    """Bring a hibernated session back.

    Raises:
        IllegalTransitionError: it is not hibernated.
    """
    order = next_order(
        tracked, Action.WAKE, actor=actor, now=now, deadline=now + timing.command_life
    )
    return move(
        tracked,
        Trigger.WAKE,
        now=now,
        timing=timing,
        actor=actor,
        cause=cause,
        reason=Reason.USER,
        order=order,
        desired=DesiredState.RUNNING,
        phases=(),
    )


def delete(
    tracked: Tracked,
    *,
    actor: Actor,
    cause: str | None = None,
    now: datetime,
    timing: Timing,
    delete_home: bool = False,
    reason: Reason = Reason.USER,
    cluster_gone: bool = False,
) -> Change:
    """Remove the session; legal in every state, and nothing new where it is under way.

    One that no cluster was ever given, or whose cluster is gone (with which it has failed),
    ends at once: there is nobody to tell.
    """
    if tracked.state in {SessionState.TERMINATING, SessionState.TERMINATED}:
        return Change(tracked, tracked)
    if tracked.session.cluster_id is None or cluster_gone:
        return move(
            tracked,
            Trigger.DELETE_UNPLACED,
            now=now,
            timing=timing,
            actor=actor,
            cause=cause,
            reason=reason,
            order=settled(tracked.order, SessionCommandState.SUPERSEDED, now),
            desired=DesiredState.TERMINATED,
        )
    order = next_order(
        tracked,
        Action.STOP,
        actor=actor,
        now=now,
        deadline=now + timing.command_life,
        delete_home=delete_home,
    )
    return move(
        tracked,
        Trigger.DELETE,
        now=now,
        timing=timing,
        actor=actor,
        cause=cause,
        reason=reason,
        order=order,
        desired=DesiredState.TERMINATED,
    )


def place(
    tracked: Tracked, cluster: ClusterId, protocol: Protocol, *, now: datetime, timing: Timing
) -> Change:
    """Give a waiting session to a cluster; its first command is sent now."""
    deadline = now + timing.pending
    session = tracked.session.model_copy(
        update={
            "cluster_id": cluster,
            "protocol": protocol,
            "deadline": deadline,
            "updated_at": now,
            "version": tracked.session.version + 1,
        }
    )
    order = replace(tracked.order, issued_at=now, deadline=deadline)
    after = replace(tracked, session=session, order=order)
    told = command_told(after, None, now, actor=SYSTEM, cause=None)
    return Change(tracked, after, (told,))


def delivered(tracked: Tracked, *, now: datetime) -> Change:
    """The stream has handed the newest command to an agent, which has not said so itself."""
    if tracked.order.state is not SessionCommandState.PENDING:
        return Change(tracked, tracked)
    order = replace(tracked.order, state=SessionCommandState.DELIVERED, delivered_at=now)
    return with_order(tracked, order, now=now)


def fail(
    tracked: Tracked,
    reason: Reason,
    message: str,
    *,
    actor: Actor = SYSTEM,
    cause: str | None = None,
    now: datetime,
    timing: Timing,
    order: Order | None = None,
    clean_up: bool = True,
) -> Change:
    """End the session as failed.

    `order` is the newest command as the failure leaves it, where it is not simply
    failed. With `clean_up` a stop is sent, so that nothing half-started stays or
    appears later.
    """
    ended = order or settled(tracked.order, SessionCommandState.FAILED, now, error=message)
    order, replaced = ended, None
    if clean_up and tracked.session.cluster_id is not None and ended.action is not Action.STOP:
        replaced = ended
        order = next_order(
            tracked, Action.STOP, actor=SYSTEM, now=now, deadline=now + timing.command_life
        )
    return move(
        tracked,
        Trigger.FAILED,
        now=now,
        timing=timing,
        actor=actor,
        cause=cause,
        reason=reason,
        message=message,
        order=order,
        replaced=replaced,
    )


def retry(
    tracked: Tracked, *, actor: Actor, cause: str | None = None, now: datetime, timing: Timing
) -> Change:
    """Start a failed session again, as an operator asks who has put right what made it fail.

    Raises:
        IllegalTransitionError: it has not failed.
    """
    order = next_order(tracked, Action.START, actor=actor, now=now, deadline=now + timing.pending)
    return move(
        tracked,
        Trigger.RETRY,
        now=now,
        timing=timing,
        actor=actor,
        cause=cause,
        order=order,
        desired=DesiredState.RUNNING,
        phases=(),
    )


def clean_up(
    tracked: Tracked,
    *,
    actor: Actor = SYSTEM,
    cause: str | None = None,
    now: datetime,
    timing: Timing,
) -> Change:
    """Send a stop for a session that has ended but of which something was found."""
    order = next_order(
        tracked, Action.STOP, actor=actor, now=now, deadline=now + timing.command_life
    )
    return with_order(tracked, order, now=now, actor=actor, cause=cause)


def lose_sight(tracked: Tracked, *, now: datetime, timing: Timing, revoked: bool = False) -> Change:
    """Its cluster is silent: what becomes of it is not known until the agent is back.

    With `revoked` it is silent because its agents are not let in.
    """
    cluster = tracked.session.cluster_id
    if revoked:
        reason = Reason.CLUSTER_REVOKED
        message = (
            f"The access of cluster {cluster} has been revoked; the session may well be running "
            "there. Its state is shown again when the cluster has been enrolled again."
        )
    else:
        reason = Reason.CLUSTER_OFFLINE
        message = (
            f"Cluster {cluster} has been silent; the session may well be running. "
            "Its state is shown again when the cluster's agent returns."
        )
    return move(
        tracked,
        Trigger.LOST_SIGHT,
        now=now,
        timing=timing,
        actor=SYSTEM,
        reason=reason,
        message=message,
    )


def restart(tracked: Tracked, *, now: datetime, timing: Timing) -> Change:
    """Bring a session up again whose resources are missing."""
    deadline = now + timing.starting
    order = next_order(tracked, Action.START, actor=SYSTEM, now=now, deadline=deadline)
    return move(
        replace(tracked, restarts=tracked.restarts + 1),
        Trigger.RESTART,
        now=now,
        timing=timing,
        actor=SYSTEM,
        reason=Reason.LOST,
        message="The cluster no longer had the session, so it is started again.",
        order=order,
        phases=(),
    )


def reissue(
    tracked: Tracked,
    *,
    actor: Actor = SYSTEM,
    cause: str | None = None,
    now: datetime,
    timing: Timing,
) -> Change:
    """Send the newest command again as a new attempt and give its state new time."""
    limit = timing.limit(tracked.state)
    state_deadline = None if limit is None else now + limit
    short_lived = tracked.order.action is Action.START and state_deadline is not None
    order = replace(
        tracked.order,
        attempt=tracked.order.attempt + 1,
        state=SessionCommandState.PENDING,
        issued_at=now,
        delivered_at=None,
        acknowledged_at=None,
        earlier=tracked.order.attempts,
        deadline=state_deadline if short_lived and state_deadline else now + timing.command_life,
    )
    return with_order(tracked, order, now=now, actor=actor, cause=cause, deadline=state_deadline)


def renumber(
    tracked: Tracked, newer: int, *, cause: str | None = None, now: datetime, timing: Timing
) -> Change:
    """Give the same order a generation above `newer`, which an agent has already seen.

    Only a database restored from an older backup can fall behind its agents; without
    this they would ignore its commands for ever.
    """
    behind = replace(tracked, session=tracked.session.model_copy(update={"generation": newer}))
    order = next_order(
        behind,
        tracked.order.action,
        actor=tracked.order.actor,
        now=now,
        deadline=now + (timing.limit(tracked.state) or timing.command_life),
        delete_home=tracked.order.delete_home,
    )
    deadline = timing.deadline(tracked.state, now)
    return with_order(tracked, order, now=now, cause=cause, deadline=deadline)


def extend(
    tracked: Tracked,
    deadline: datetime,
    *,
    now: datetime,
    order: Order | None = None,
    actor: Actor = SYSTEM,
    cause: str | None = None,
) -> Change:
    """Give the current state another deadline, and keep what its command has come to."""
    return with_order(
        tracked, order or tracked.order, now=now, actor=actor, cause=cause, deadline=deadline
    )


def give_up_deletion(tracked: Tracked, *, now: datetime, timing: Timing) -> Change:
    """Count a deletion as done whose cluster is gone.

    The stop stays in the command stream, and the inventory of a returning agent finds
    whatever is left.
    """
    return move(
        tracked,
        Trigger.GIVEN_UP,
        now=now,
        timing=timing,
        actor=SYSTEM,
        reason=Reason.CLUSTER_OFFLINE,
        message=f"Cluster {tracked.session.cluster_id} is offline; what is left of the session "
        "is removed when its agent returns.",
    )
