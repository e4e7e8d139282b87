"""What the agent counts and times, for Prometheus."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

COMMANDS: Final = Counter(
    "streamspace_agent_commands_total",
    "Deliveries of commands, by what was asked and what came of it.",
    labelnames=("action", "result"),
)
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
