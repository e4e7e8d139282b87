"""What to do with a session whose time in its state is over.

Every state that must end does: its command is tried again while attempts remain and
its cluster is there, then the session fails, or its deletion counts as done. Two
states wait longer for a silent cluster: a deletion, since its stop is safe in the
stream, and `unknown`, since the desktop may well be running.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from streamspace_common.contracts.sessions import Reason, SessionState
from streamspace_session.domain import Timing, Tracked


@dataclass(frozen=True)
class Extend:
    until: datetime


@dataclass(frozen=True)
class Reissue:
    pass


@dataclass(frozen=True)
class Fail:
    reason: Reason
    message: str


@dataclass(frozen=True)
class GiveUpDeletion:
    pass


Verdict = Extend | Reissue | Fail | GiveUpDeletion


def overdue(tracked: Tracked, now: datetime, *, cluster_live: bool, timing: Timing) -> Verdict:
    """The verdict on a session past its deadline."""
    match tracked.state:
        case SessionState.UNKNOWN:
            return Fail(
                Reason.LOST,
                f"Cluster {tracked.session.cluster_id} has been silent for "
                f"{_words(timing.unknown)}; the session is given up.",
            )
        case SessionState.PENDING if not cluster_live:
            return Fail(
                Reason.CLUSTER_OFFLINE,
                f"No cluster that can run it was online and had room for it within "
                f"{_words(timing.pending)}. Try again when one is.",
            )
        case SessionState.TERMINATING if not cluster_live:
            limit = tracked.since + timing.offline_stop
            return Extend(limit) if now < limit else GiveUpDeletion()
        case _ if not cluster_live:
            # The next look at presences makes it unknown, which has its own deadline.
            return Extend(now + (timing.limit(tracked.state) or timing.unknown))
        case _ if tracked.order.attempt < timing.max_attempts:
            return Reissue()
        case _:
            return Fail(Reason.DEADLINE_EXCEEDED, _unconfirmed(tracked))


def _unconfirmed(tracked: Tracked) -> str:
    detail = f" Its last word was: {tracked.order.error}" if tracked.order.error else ""
    return (
        f"Cluster {tracked.session.cluster_id} did not confirm {tracked.order.action} in "
        f"{tracked.order.attempt} attempts.{detail} Its agent's log tells more."
    )


def _words(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{seconds:g} seconds"
