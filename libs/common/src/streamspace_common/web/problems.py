"""Every error answer is `application/problem+json` with a stable code and a request id.

`install(app)` covers what handlers raise (`ProblemError`), what the framework finds
wrong (validation, unknown path, wrong method, unreadable JSON), and what nobody
expected: that is logged once, and told to the caller without a detail of ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from streamspace_common.contracts.problems import Code, FieldProblem, Problem, ProblemError
from streamspace_common.runtime.logging import get_logger
from streamspace_common.web.limits import MAX_BODY, BodyMiddleware
from streamspace_common.web.metrics import MetricsMiddleware
from streamspace_common.web.requests import RequestMiddleware, problem_response, request_id

log = get_logger(__name__)

_PLACES: Final = frozenset({"body", "query", "path", "header", "cookie"})
_BY_STATUS: Final[Mapping[int, tuple[Code, str]]] = {
    400: (Code.INVALID_REQUEST, "The request cannot be read."),
    401: (Code.UNAUTHENTICATED, "Sign in first."),
    403: (Code.FORBIDDEN, "You may not do this."),
    404: (Code.NOT_FOUND, "There is nothing at this address."),
    405: (Code.METHOD_NOT_ALLOWED, "This address does not take this method."),
    406: (Code.INVALID_REQUEST, "None of the accepted forms can be sent."),
    409: (Code.CONFLICT, "The request conflicts with the present state."),
    412: (Code.PRECONDITION_FAILED, "It was changed meanwhile. Read it again."),
    413: (Code.PAYLOAD_TOO_LARGE, "The request is larger than this address takes."),
    415: (Code.UNSUPPORTED_MEDIA_TYPE, "Send JSON, with `Content-Type: application/json`."),
    422: (Code.INVALID_REQUEST, "The request is not valid."),
    429: (Code.TOO_MANY_REQUESTS, "Too many requests. Try again later."),
    503: (Code.SERVICE_UNAVAILABLE, "Not available right now. Try again in a moment."),
}
_OWN_HEADERS: Final = frozenset({"content-type", "content-length"})


def install(app: FastAPI, *, max_body: int = MAX_BODY) -> None:
    """Make every answer of `app` carry a request id, and every error be a problem.

    Adds, from the outside in: request id, trace and access log; HTTP metrics; the
    limit on bodies. Call it once, before the app serves.

    Args:
        app: whose answers.
        max_body: bytes a request body may have.
    """
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(BodyMiddleware, max_body=max_body)
    app.add_middleware(MetricsMiddleware)
    app.add_middleware(RequestMiddleware)


async def _on_problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        raise error
    problem = error.problem
    if problem.status >= 500:
        log.warning("request refused", code=problem.code, detail=problem.detail)
    return _answer(request, problem)


async def _on_invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = field_problems(error.errors())
    detail = "; ".join(f"{e.pointer or 'body'}: {e.detail}" for e in errors[:3])
    return _answer(request, Problem.of(Code.INVALID_REQUEST, detail, errors=errors))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code, detail = _BY_STATUS.get(
        error.status_code,
        (Code.INTERNAL, "Something went wrong on our side.")
        if error.status_code >= 500
        else (Code.INVALID_REQUEST, "The request is not valid."),
    )
    kept = {
        name: value
        for name, value in (error.headers or {}).items()
        if name.lower() not in _OWN_HEADERS
    }
    return _answer(request, Problem.of(code, detail), kept)


def _answer(
    request: Request, problem: Problem, headers: Mapping[str, str] | None = None
) -> Response:
    return problem_response(
        problem, request_id=request_id(request), instance=request.url.path, headers=headers
    )


def field_problems(errors: Sequence[Any]) -> tuple[FieldProblem, ...]:
    """Pydantic's findings as pointers and sentences; what was sent is never repeated."""
    return tuple(
        FieldProblem(pointer=_pointer(error), detail=_sentence(error["msg"])) for error in errors
    )


def _pointer(error: Mapping[str, Any]) -> str:
    """A JSON pointer into the body, or the name of a parameter."""
    place, *path = error["loc"] or ("body",)
    if place not in _PLACES:
        path = [place, *path]
    elif place != "body":
        return str(path[0]) if path else str(place)
    if error["type"] == "json_invalid":
        return ""
    return "".join(f"/{_escaped(step)}" for step in path)


def _escaped(step: object) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").rstrip(".") + "."
