"""What Prometheus scrapes: build information and a histogram of HTTP requests.

A request is labelled with the template of its route, never with its path: a label
per session id would grow without end.
"""

import time
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, Gauge, Histogram, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HTTP_REQUESTS: Final = Histogram(
    "streamspace_http_request_duration_seconds",
    "Time to the first byte of the answer; a stream of events may go on for hours.",
    labelnames=("method", "route", "code"),
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_BUILD: Final = Gauge(
    "streamspace_build_info", "Always 1; tells what runs.", labelnames=("service", "version")
)
_UNMATCHED: Final = "unmatched"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def set_build_info(service: str, version: str) -> None:
    """Tell once, at start-up, what this process is."""
    _BUILD.labels(service=service, version=version).set(1)


def exposition() -> Response:
    """All metrics of this process in Prometheus' text form."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


class MetricsMiddleware:
    """Times each request up to the start of its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                HTTP_REQUESTS.labels(
                    method=scope["method"] if scope["method"] in _METHODS else "other",
                    route=_template(scope),
                    code=str(message["status"]),
                ).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, timed)


def _template(scope: Scope) -> str:
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else _UNMATCHED
