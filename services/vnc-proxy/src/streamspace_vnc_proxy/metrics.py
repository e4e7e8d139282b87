"""What Prometheus learns of the relay."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

STREAMS: Final = Gauge("streamspace_proxy_streams", "Viewers connected to a session right now.")
BYTES: Final = Counter(
    "streamspace_proxy_bytes_total", "Payload relayed, updated every few seconds.", ("direction",)
)
OPENS: Final = Counter(
    "streamspace_proxy_opens_total",
    "Streams asked for: `opened`, or why not.",
    ("result",),
)
OPEN_DURATION: Final = Histogram(
    "streamspace_proxy_open_duration_seconds",
    "From a viewer's upgrade to both ends joined.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
ADDED_LATENCY: Final = Histogram(
    "streamspace_proxy_added_latency_seconds",
    "How long a byte waits until the relay reads it, tried once a second.",
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0),
)
TO_VIEWERS: Final = "to_viewers"
FROM_VIEWERS: Final = "from_viewers"
for _direction in (TO_VIEWERS, FROM_VIEWERS):
    BYTES.labels(_direction)  # There from the start, as zero.
