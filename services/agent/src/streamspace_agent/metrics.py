"""What the agent counts and times, for Prometheus."""

from collections import Counter as Tally
from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from streamspace_agent.domain import Observed
from streamspace_common.contracts.clusters import ResourceState

COMMANDS: Final = Counter(
    "streamspace_agent_commands_total",
    "Deliveries of commands, by what was asked and what came of it.",
    labelnames=("type", "result"),
)
REDELIVERIES: Final = Counter(
    "streamspace_command_redeliveries_total",
    "Deliveries of a command that had been delivered before.",
)
SESSIONS: Final = Gauge(
    "streamspace_agent_sessions",
    "What this agent's runtime holds, by state; replicas see the same.",
    labelnames=("state",),
)
BUSY: Final = Gauge("streamspace_agent_busy_commands", "Commands being carried out right now.")
PHASES: Final = Histogram(
    "streamspace_session_start_phase_duration_seconds",
    "From the moment a start was begun to the moment it reached a phase.",
    labelnames=("phase",),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0),
)
DEATHS: Final = Counter(
    "streamspace_agent_desktop_deaths_total", "Desktops that ended by themselves."
)
TUNNELS: Final = Gauge("streamspace_agent_tunnels_open", "Viewers connected through this agent.")
TUNNEL_REQUESTS: Final = Counter(
    "streamspace_agent_tunnel_requests_total",
    "Requests to open a tunnel, by outcome.",
    labelnames=("result",),
)
CLUSTER_REQUESTS: Final = Counter(
    "streamspace_agent_cluster_requests_total",
    "Requests to the API of a Kubernetes cluster, by what was asked of what, and the answer.",
    labelnames=("verb", "resource", "code"),
)


def show(held: Iterable[Observed], busy: int) -> None:
    """Show what the agent holds, and how many commands it is working on."""
    states = Tally(one.state for one in held)
    for state in ResourceState:
        SESSIONS.labels(state=state.value).set(states[state])
    BUSY.set(busy)
