"""`/healthz`, `/readyz` and `/metrics` of a process.

Healthy means the event loop answers. Ready means every check passes and no drain
has begun; readiness flips first when a service ends, so that nobody sends it more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from streamspace_common.web import metrics
from streamspace_common.web.serving import Server, listen, serve

__all__ = ["Health", "Server", "create_app", "listen", "serve"]

_CHECK_TIMEOUT: Final = 2.0
"""Seconds; probes give up after some more."""

Check = Callable[[], bool | Awaitable[bool]]


class Health:
    """What a process needs to be of use, as named checks."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self.draining = False

    def add(self, name: str, check: Check) -> None:
        """Add a check, plain or async; one that fails, raises or takes over 2 s is not passed."""
        self._checks[name] = check

    def drain(self) -> None:
        """Flip readiness; for `Supervisor.on_draining`."""
        self.draining = True

    async def passed(self) -> dict[str, bool]:
        """The outcome of every check, all asked at once."""
        outcomes = await asyncio.gather(
            *(self._ask(check) for check in self._checks.values()), return_exceptions=True
        )
        return {name: outcome is True for name, outcome in zip(self._checks, outcomes, strict=True)}

    @staticmethod
    async def _ask(check: Check) -> bool:
        async with asyncio.timeout(_CHECK_TIMEOUT):
            answer = check()
            return answer if isinstance(answer, bool) else await answer


def create_app(health: Health, service: str, version: str = "") -> FastAPI:
    """The app of a process's own port for probes and scrapes, apart from what users reach."""
    metrics.set_build_info(service, version)
    app = FastAPI(title=service, openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        checks = await health.passed()
        ready = not health.draining and all(checks.values())
        return JSONResponse(
            {"ready": ready, "draining": health.draining, "checks": checks},
            status_code=200 if ready else 503,
            headers={"Cache-Control": "no-store"},
        )

    @app.get("/metrics", include_in_schema=False)
    def scrape() -> Response:
        return metrics.exposition()

    return app
