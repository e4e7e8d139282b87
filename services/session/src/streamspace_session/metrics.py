"""What this service tells Prometheus.

The label `agent` holds a cluster: its agents share one name. Templates and clusters
come from outside, so only the first of them get series of their own.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from streamspace_common.contracts.sessions import SessionCommandState, SessionState
from streamspace_common.runtime.labels import BoundedLabel
from streamspace_session.domain import Action, Change

AGENT: Final = BoundedLabel(100)
_TEMPLATE: Final = BoundedLabel(50)
_PATHS: Final = {Action.START: "cold", Action.WAKE: "resume"}

SESSIONS: Final = Gauge(
    "streamspace_sessions",
    "Sessions by state and cluster; `none` before one is chosen.",
    labelnames=("state", "agent"),
)
START_DURATION: Final = Histogram(
    "streamspace_session_start_duration_seconds",
    "From the command's creation until the desktop answers, by the database's clock.",
    labelnames=("template", "agent", "path"),
    buckets=(0.1, 0.2, 0.35, 0.5, 1, 2, 5, 10, 30, 60, 120, 300),
)
COMMANDS: Final = Counter(
    "streamspace_commands_total",
    "Commands that ended, by what they asked and how they ended.",
    labelnames=("type", "result"),
)
DELIVERY_DURATION: Final = Histogram(
    "streamspace_command_delivery_duration_seconds",
    "From a command's issue until its agent has said that it has it, by the database's clock.",
    labelnames=("type",),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600),
)
QUEUE_AGE: Final = Gauge(
    "streamspace_command_queue_age_seconds",
    "Age of the oldest command that no agent has taken; 0 when there is none.",
)
FORGOTTEN: Final = Counter(
    "streamspace_sessions_forgotten_total",
    "Ended sessions that were removed, with their history, because they ended long ago.",
)
DEAD_LETTERS: Final = Gauge(
    "streamspace_dead_letters", "Commands that gave up and that nobody has settled."
)
LAST_SEEN: Final = Gauge(
    "streamspace_agent_last_seen_timestamp_seconds",
    "When an agent of the cluster was last heard of, in seconds since 1970.",
    labelnames=("agent",),
)
PROJECTION_LAG: Final = Gauge(
    "streamspace_projection_lag_seconds",
    "Age of the oldest event that this service has not worked on; 0 when there is none.",
)
CONSUMER_PENDING: Final = Gauge(
    "streamspace_consumer_pending_messages",
    "Messages a durable consumer has not delivered yet.",
    labelnames=("consumer",),
)
CONSUMER_UNSETTLED: Final = Gauge(
    "streamspace_consumer_unsettled_messages",
    "Messages a durable consumer has delivered, with their outcome still open.",
    labelnames=("consumer",),
)


def count(changes: Iterable[Change]) -> None:
    """Count what committed changes ended, and time what they began."""
    for change in changes:
        if change.replaced is not None and change.before.order.is_open:
            _ended(change.replaced.action, change.replaced.state)
        was, now = change.before.order, change.after.order
        if now.acknowledged_at is not None and now.acknowledged_at != was.acknowledged_at:
            seconds = (now.acknowledged_at - now.issued_at).total_seconds()
            DELIVERY_DURATION.labels(type=now.action.value).observe(max(seconds, 0))
        if was.generation != now.generation or not was.is_open or now.is_open:
            continue
        _ended(now.action, now.state)
        _time_start(change)


def _time_start(change: Change) -> None:
    session, order = change.after.session, change.after.order
    path = _PATHS.get(order.action)
    if (
        path is None
        or change.after.state is not SessionState.RUNNING
        or order.state is not SessionCommandState.COMPLETED
        or order.completed_at is None
    ):
        return
    seconds = (order.completed_at - order.created_at).total_seconds()
    START_DURATION.labels(
        template=_TEMPLATE(session.template_id), agent=AGENT(session.cluster_id), path=path
    ).observe(max(seconds, 0))


def _ended(action: Action, state: SessionCommandState) -> None:
    COMMANDS.labels(type=action.value, result=state.value).inc()
