"""What this service tells Prometheus."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from streamspace_common.contracts.sessions import SessionCommandState, SessionState
from streamspace_session.domain import Change

SESSIONS: Final = Gauge("streamspace_sessions", "Sessions by state.", labelnames=("state",))
START_DURATION: Final = Histogram(
    "streamspace_session_start_duration_seconds",
    "From the command's creation until the desktop answers, by the database's clock.",
    labelnames=("action",),
    buckets=(0.05, 0.1, 0.2, 0.35, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
)
COMMANDS: Final = Counter(
    "streamspace_commands_total",
    "Commands that ended, by what they asked and how they ended.",
    labelnames=("action", "result"),
)
QUEUE_AGE: Final = Gauge(
    "streamspace_command_queue_age_seconds",
    "Age of the oldest command that no agent has taken; 0 when there is none.",
)


def count(changes: Iterable[Change]) -> None:
    """Count what committed changes ended."""
    for change in changes:
        if change.replaced is not None and change.before.order.is_open:
            _ended(change.replaced.action.value, change.replaced.state)
        was, now = change.before.order, change.after.order
        if was.generation != now.generation or not was.is_open or now.is_open:
            continue
        _ended(now.action.value, now.state)
        started = change.after.state is SessionState.RUNNING
        if started and now.state is SessionCommandState.COMPLETED and now.completed_at is not None:
            seconds = (now.completed_at - now.created_at).total_seconds()
            START_DURATION.labels(action=now.action.value).observe(max(seconds, 0))


def _ended(action: str, state: SessionCommandState) -> None:
    COMMANDS.labels(action=action, result=state.value).inc()
