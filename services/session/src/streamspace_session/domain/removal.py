"""What becomes of a session whose cluster is removed: it ends, and nobody is told to end it.

No agent will ever report on it again, so what waits for a report ends here. A session that
was being deleted is; any other has failed, which its owner is told with the reason. Its
newest command has no one left to take it and is superseded by nothing: it is no dead letter,
for nobody could retry it.
"""

from datetime import datetime

from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.sessions import Reason, SessionCommandState, SessionState
from streamspace_session.domain.machine import Trigger
from streamspace_session.domain.model import Change, Timing, Tracked
from streamspace_session.domain.moves import move, settled, with_order


def end_with_cluster(
    tracked: Tracked, *, actor: Actor, cause: str | None = None, now: datetime, timing: Timing
) -> Change:
    """End the session because its cluster is removed; of one that has ended, its command."""
    message = f"Cluster {tracked.session.cluster_id} was removed, and its sessions with it."
    order = settled(tracked.order, SessionCommandState.SUPERSEDED, now, error=message)
    if tracked.state.is_final:
        return with_order(tracked, order, now=now, actor=actor, cause=cause)
    deleted = tracked.state is SessionState.TERMINATING
    return move(
        tracked,
        Trigger.GIVEN_UP if deleted else Trigger.FAILED,
        now=now,
        timing=timing,
        actor=actor,
        cause=cause,
        reason=Reason.CLUSTER_REMOVED,
        message=message,
        order=order,
    )
