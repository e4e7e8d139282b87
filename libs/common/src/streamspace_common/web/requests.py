"""What surrounds every HTTP request: its id, its trace, its line in the log.

The id is the client's own `X-Request-Id` where that is a sane one, else a fresh
one; it stands on the answer, on every log line, and in every problem.
"""

import re
import secrets
import time
from collections.abc import Mapping
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamspace_common.contracts.problems import Code, Problem
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.tracing import Kind, Span, span, tracing

log = get_logger(__name__)

REQUEST_ID: Final = "X-Request-Id"
_STATE_KEY: Final = "request_id"
_SANE: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{7,63}$")
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})


def request_id(connection: HTTPConnection) -> str | None:
    """The id of this request; None outside `RequestMiddleware`."""
    value = connection.scope.get("state", {}).get(_STATE_KEY)
    return str(value) if value is not None else None


def problem_response(
    problem: Problem,
    *,
    request_id: str | None,
    instance: str | None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as an answer, with the headers that belong to it."""
    told = problem.model_copy(update={"request_id": request_id, "instance": instance})
    extra = dict(headers or {})
    if problem.retry_after is not None:
        extra["Retry-After"] = str(problem.retry_after)
    if problem.status == 401:
        extra.setdefault("WWW-Authenticate", "Bearer")
    extra["Cache-Control"] = "no-store"
    return Response(
        told.model_dump_json(by_alias=True, exclude_none=True),
        status_code=problem.status,
        headers=extra,
        media_type="application/problem+json",
    )


def current_request_id() -> str | None:
    """The id of the HTTP request that the running code answers; None outside of one."""
    id_ = structlog.contextvars.get_contextvars().get(_STATE_KEY)
    return id_ if isinstance(id_, str) else None


class RequestMiddleware:
    """Gives each request an id and a trace, logs it, and answers for what nobody caught."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        id_ = given if _SANE.match(given) else secrets.token_hex(16)
        scope.setdefault("state", {})[_STATE_KEY] = id_
        with (
            tracing(headers.get("traceparent")),
            structlog.contextvars.bound_contextvars(request_id=id_),
        ):
            if scope["path"] in _QUIET:
                await self._handle(id_, scope, receive, send)
                return
            with span(scope["method"], Kind.SERVER) as traced:
                await self._handle(id_, scope, receive, _telling(traced, scope, send))

    async def _handle(self, id_: str, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = id_
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if status:
                # Too late for an answer; the server closes the connection.
                raise
            await _unexpected(id_, scope)(scope, receive, send_with_id)
        if scope["path"] not in _QUIET:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round((time.perf_counter() - began) * 1000, 1),
            )


def _telling(traced: Span, scope: Scope, send: Send) -> Send:
    """Tell the span what the request was, once that is known."""

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            route = getattr(scope.get("route"), "path", "unmatched")
            traced.rename(f"{scope['method']} {route}")
            traced.set(
                **{
                    "http.request.method": scope["method"],
                    "http.route": route,
                    "http.response.status_code": message["status"],
                }
            )
            if message["status"] >= 500:
                traced.fail(str(message["status"]))
            if _is_endless(message):
                # What follows comes over hours, and each part belongs to a trace of its own.
                traced.end()
        await send(message)

    return tell


def _is_endless(start: Message) -> bool:
    return Headers(raw=start["headers"]).get("content-type", "").startswith("text/event-stream")


def _unexpected(id_: str, scope: Scope) -> Response:
    problem = Problem.of(
        Code.INTERNAL,
        f"Something went wrong on our side. When you report it, give this id: {id_}",
    )
    return problem_response(problem, request_id=id_, instance=scope["path"])
