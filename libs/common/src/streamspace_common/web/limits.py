"""Takes in a request's body before anybody works for it: bounded, and fit for our stores.

Bodies of this API are small JSON documents, so they are read whole here, chunked
ones too; one byte over the limit is `413`. A NUL character, in the body or in the
address, and half a surrogate pair are refused: JSON can spell them, but neither
PostgreSQL nor UTF-8 can hold them, and nobody has a use for them.
"""

import json
import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamspace_common.contracts.problems import Code, FieldProblem, Problem
from streamspace_common.web.requests import problem_response

MAX_BODY: Final = 1024 * 1024
"""Bytes. The largest document the API takes is a session with its labels: some kilobytes."""

_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_ESCAPED_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class BodyMiddleware:
    """Reads the body up to a limit and hands it on in one piece."""

    def __init__(self, app: ASGIApp, *, max_body: int = MAX_BODY) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            await _refuse(_unfit("The address holds a NUL character."), scope, receive, send)
            return
        body = b""
        if _announced(scope) <= self._max_body:
            read = await _read(receive, self._max_body)
            if read is None:
                return  # the client left before it had said everything
            body = read
        if _announced(scope) > self._max_body or len(body) > self._max_body:
            await _refuse(_too_large(self._max_body), scope, receive, send)
        elif b"\0" in body or _ESCAPED_NUL.search(body):
            await _refuse(_unfit("The body holds a NUL character."), scope, receive, send)
        elif _ESCAPED_SURROGATE.search(body) and _holds_half_a_pair(body):
            await _refuse(_unfit("The body holds half a surrogate pair."), scope, receive, send)
        else:
            await self._app(scope, _replay(body, receive), send)


def _announced(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "0")
    return int(length) if length.isdigit() else 0


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The body, or its first bytes over the limit; None when the client has gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > limit or not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    id_ = scope.get("state", {}).get("request_id")
    # What the client has not sent yet is not worth reading.
    headers = {"Connection": "close"} if problem.code is Code.PAYLOAD_TOO_LARGE else None
    answer = problem_response(problem, request_id=id_, instance=scope["path"], headers=headers)
    await answer(scope, receive, send)


def _too_large(limit: int) -> Problem:
    return Problem.of(Code.PAYLOAD_TOO_LARGE, f"The body has more than {limit} bytes.")


def _unfit(detail: str) -> Problem:
    return Problem.of(
        Code.INVALID_REQUEST, detail, errors=(FieldProblem(pointer="", detail=detail),)
    )


def _holds_half_a_pair(body: bytes) -> bool:
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False  # not JSON; the framework says so
    return False
