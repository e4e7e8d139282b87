"""Request and reply between services, over NATS micro services.

A service is visible to `$SRV.PING/INFO/STATS` and shares its work with its replicas
through the queue group. The client runs an endpoint's handlers one after the other,
so each request is handed to a task of its own here; more than `concurrency` of them
wait, and far more are refused at once with a retry hint, for a caller that waits in
a hopeless queue is worse off than one that is told.

An error travels as the JSON of a `Problem` beside the two error headers of the micro
protocol, and comes out of `call` as the `ProblemError` that the handler raised.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from nats import errors as nats_errors
from nats.micro.request import ERROR_CODE_HEADER, Request
from nats.micro.service import EndpointConfig, Service, ServiceConfig
from pydantic import ValidationError

from streamspace_common.bus.envelope import carried, request_headers
from streamspace_common.bus.errors import (
    BusUnavailableError,
    MessageTooLargeError,
    NobodyAnswersError,
)
from streamspace_common.bus.link import Link
from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.problems import Code, FieldProblem, Problem, ProblemError
from streamspace_common.runtime.tracing import Kind, span

log = structlog.get_logger(__name__)

Reply = TypeVar("Reply", bound=Contract)
Handler = Callable[[Any], Awaitable[Contract | bytes]]
"""Answers with the reply, or with its JSON where that is at hand."""
ClusterHandler = Callable[[ClusterId, Any], Awaitable[Contract | bytes]]
"""The same, for requests whose subject says which cluster asks."""

# Interest in a subject travels asynchronously: a service that has just started may be
# unknown for an instant. Seconds before each further try.
_INTEREST_PAUSES = (0.1, 0.2, 0.4)
_RETRY_AFTER = 2
_QUEUE_FACTOR = 8
_VERSION = "1.0.0"


async def call(
    link: Link,
    subject: str,
    request: Contract,
    reply: type[Reply],
    *,
    timeout: float,
    cluster: ClusterId | None = None,
) -> Reply:
    """Ask on `subject`, agents of `cluster` if any, and read the answer; see `Bus.call`."""
    answer = await call_unread(link, subject, request, timeout=timeout, cluster=cluster)
    try:
        return reply.from_json(answer)
    except ValidationError as error:
        log.exception("bus.reply_unreadable", subject=subject, type=reply.__name__)
        raise ProblemError.of(
            Code.INTERNAL, f"The {_callee(subject)} gave an answer that cannot be read."
        ) from error


async def call_unread(
    link: Link,
    subject: str,
    request: Contract,
    *,
    timeout: float,
    cluster: ClusterId | None = None,
) -> bytes:
    """Ask on `subject`; the answer's JSON as it came. See `Bus.call_unread`."""
    try:
        with span(f"call {_method(subject)}", Kind.CLIENT):
            answer = await _ask(link, subject, request.to_json(), timeout, cluster)
    except MessageTooLargeError as error:
        raise ProblemError.of(Code.PAYLOAD_TOO_LARGE, "Send less at once.") from error
    except BusUnavailableError as error:
        log.warning("bus.call_unanswered", subject=subject, error=str(error))
        raise ProblemError.of(
            Code.SERVICE_UNAVAILABLE,
            f"The {_callee(subject)} does not answer right now; try again in a moment.",
            retry_after=_RETRY_AFTER,
        ) from error
    if ERROR_CODE_HEADER in answer.headers:
        raise ProblemError(_problem(subject, answer.payload))
    return answer.payload


class _Answer:
    __slots__ = ("headers", "payload")

    def __init__(self, payload: bytes, headers: Mapping[str, str]) -> None:
        self.payload = payload
        self.headers = headers


async def _ask(
    link: Link, subject: str, payload: bytes, timeout: float, cluster: ClusterId | None
) -> _Answer:
    headers = request_headers()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    for pause in (*_INTEREST_PAUSES, None):
        try:
            message = await link.request(
                subject,
                payload,
                headers=headers,
                timeout=max(0.001, deadline - loop.time()),
                cluster=cluster,
            )
        except NobodyAnswersError:
            if pause is None:
                raise
            await asyncio.sleep(pause)
        else:
            return _Answer(message.data, message.headers or {})
    raise AssertionError("the last try returns or raises")


def _method(subject: str) -> str:
    """What is asked, without the cluster that is."""
    prefix, callee, name = (*subject.split("."), "", "")[:3]
    return f"{prefix}.{name}" if prefix == "rpc" else f"{callee}.{name}"


def _callee(subject: str) -> str:
    match subject.split("."):
        case ["svc", name, *_]:
            return f"{name} service"
        case ["rpc", cluster, _]:
            return f"agent of cluster {cluster}"
        case _:
            return "other side"


def _problem(subject: str, payload: bytes) -> Problem:
    try:
        return Problem.from_json(payload)
    except ValidationError:
        log.warning("bus.problem_unreadable", subject=subject)
        return Problem.of(Code.INTERNAL, f"The {_callee(subject)} failed.")


@dataclass(frozen=True)
class FromCluster:
    """Answers requests whose subject ends in the cluster that asks, which only it can use."""

    handler: ClusterHandler

    def bound(self, subject: str) -> Handler:
        cluster = ClusterId(subject.rpartition(".")[2])

        async def handle(asked: Any) -> Contract | bytes:
            return await self.handler(cluster, asked)

        return handle


class Served:
    """A running service; `stop` leaves no accepted request unanswered."""

    def __init__(self, link: Link, name: str, concurrency: int) -> None:
        self._link = link
        self._name = name
        self._slots = asyncio.Semaphore(concurrency)
        self._most = concurrency * _QUEUE_FACTOR
        self._running: set[asyncio.Task[None]] = set()
        self._service: Service | None = None

    async def start(
        self, endpoints: Mapping[str, tuple[str, type[Contract], Handler | FromCluster]]
    ) -> None:
        """Serve `endpoints`: method name -> (subject, request model, handler)."""
        try:
            self._service = Service(
                self._link.client, ServiceConfig(name=self._name, version=_VERSION)
            )
            with suppress(nats_errors.FlushTimeoutError):
                # The last it does; we have more patience with a server that hangs.
                await self._service.start()
            for name, (subject, model, handler) in endpoints.items():
                await self._service.add_endpoint(
                    EndpointConfig(
                        name=name, subject=subject, handler=self._accept(subject, model, handler)
                    )
                )
        except (nats_errors.Error, OSError) as error:
            raise BusUnavailableError(f"cannot serve {self._name}: {error}") from error
        await self._link.until_known()

    async def stop(self, timeout: float = 20.0) -> None:
        """Take no more requests; answer those taken, for `timeout` seconds at most."""
        if self._service is not None and not self._link.client.is_closed:
            try:
                await self._service.stop()
            except (nats_errors.Error, OSError) as error:
                log.warning("bus.service_not_drained", service=self._name, error=str(error))
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _accept(
        self, subject: str, model: type[Contract], handler: Handler | FromCluster
    ) -> Callable[[Request], Awaitable[None]]:
        async def accept(request: Request) -> None:
            if len(self._running) >= self._most:
                log.warning("bus.request_refused", subject=subject, waiting=len(self._running))
                await self._respond_problem(
                    request,
                    Problem.of(
                        Code.SERVICE_UNAVAILABLE,
                        f"The {_callee(subject)} has too much to do; try again in a moment.",
                        retry_after=_RETRY_AFTER,
                    ),
                )
                return
            bound = handler.bound(request.subject) if isinstance(handler, FromCluster) else handler
            task = asyncio.create_task(
                self._serve_one(request, model, bound), name=f"serve:{subject}"
            )
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        return accept

    async def _serve_one(self, request: Request, model: type[Contract], handler: Handler) -> None:
        with carried(request.headers or {}):
            with span(f"handle {_method(request.subject)}", Kind.SERVER) as traced:
                async with self._slots:
                    outcome = await _outcome(request, model, handler)
                if isinstance(outcome, Problem):
                    traced.set(problem=outcome.code)
                    if outcome.status >= 500:
                        traced.fail(outcome.code)
            if isinstance(outcome, Problem):
                await self._respond_problem(request, outcome)
                return
            try:
                await request.respond(outcome)
            except nats_errors.MaxPayloadError:
                log.exception("bus.reply_too_large", subject=request.subject, size=len(outcome))
                await self._respond_problem(
                    request, Problem.of(Code.INTERNAL, "The answer is too large to be sent.")
                )
            except (nats_errors.Error, OSError) as error:
                log.warning("bus.reply_not_sent", subject=request.subject, error=str(error))

    async def _respond_problem(self, request: Request, problem: Problem) -> None:
        try:
            await request.respond_error(str(problem.status), problem.title, data=problem.to_json())
        except (nats_errors.Error, OSError) as error:
            log.warning("bus.reply_not_sent", subject=request.subject, error=str(error))


async def _outcome(request: Request, model: type[Contract], handler: Handler) -> bytes | Problem:
    try:
        asked = model.from_json(request.data)
    except ValidationError as error:
        return _invalid(error)
    try:
        answer = await handler(asked)
        return answer if isinstance(answer, bytes) else answer.to_json()
    except ProblemError as error:
        return error.problem
    except Exception:
        error_id = secrets.token_hex(4)
        log.exception("bus.handler_failed", subject=request.subject, error_id=error_id)
        return Problem.of(
            Code.INTERNAL, f"Something went wrong on our side; it is logged as {error_id}."
        )


def _invalid(error: ValidationError) -> Problem:
    """The fields that are wrong and why, without the values they held."""
    return Problem.of(
        Code.INVALID_REQUEST,
        "Correct the fields named in `errors`.",
        errors=tuple(
            FieldProblem(
                pointer="/" + "/".join(str(part) for part in one["loc"]), detail=one["msg"]
            )
            for one in error.errors(include_url=False, include_input=False, include_context=False)
        ),
    )
