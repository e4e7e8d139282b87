"""What Prometheus learns of the agents' ingress."""

from typing import Final

from prometheus_client import Counter, Gauge

CONNECTIONS: Final = Gauge(
    "streamspace_ingress_connections", "Agents' connections that are handed on right now.", ("to",)
)
REFUSED: Final = Counter(
    "streamspace_ingress_refused_total",
    "Requests that were not handed on: `unknown` what for, no `upgrade`, or what they are for is "
    "`unreachable`.",
    ("reason",),
)
CERTIFICATE_ENDS: Final = Gauge(
    "streamspace_ingress_certificate_expiry_timestamp_seconds",
    "When the certificate ends that agents are shown.",
)
BUS: Final = "bus"
TUNNELS: Final = "tunnels"
UNKNOWN: Final = "unknown"
NO_UPGRADE: Final = "upgrade"
UNREACHABLE: Final = "unreachable"
# There from the start, as zero.
for _to in (BUS, TUNNELS):
    CONNECTIONS.labels(_to)
for _reason in (UNKNOWN, NO_UPGRADE, UNREACHABLE):
    REFUSED.labels(_reason)
