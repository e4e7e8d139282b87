"""Request and reply over NATS micro: problems, overload, replicas, trace, restarts."""

import asyncio
import json
from collections import Counter

import pytest
import structlog

from streamspace_common.bus import Bus
from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    AuthMethods,
    ClusterMethod,
    Empty,
    KeySet,
    LoginRequest,
    Method,
    RefreshRequest,
    Tokens,
)
from streamspace_common.runtime.tracing import current_traceparent, tracing
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually


class Text(Contract):
    text: str


class Number(Contract):
    number: int


ECHO = Method("demo", "echo", Text, Text)
SLOW = Method("demo", "slow", Text, Text)
MISREAD = Method("demo", "echo", Text, Number)
LAX = Method("auth", "login", Text, Tokens)


async def echo(request: Text) -> Text:
    return request


async def problem_of(awaitable: object) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value


async def test_a_request_is_answered(bus: Bus) -> None:
    served = await bus.serve("demo", {ECHO: echo})
    assert (await bus.call(ECHO, Text(text="grüße"))).text == "grüße"
    await served.stop()


async def test_a_handler_may_answer_with_what_is_written_already(bus: Bus) -> None:
    async def written(request: Text) -> bytes:
        return b'{"text":"as it is", "more":1}'

    served = await bus.serve("demo", {ECHO: written})
    assert (await bus.call(ECHO, Text(text=""))).text == "as it is"
    assert await bus.call_unread(ECHO, Text(text="")) == b'{"text":"as it is", "more":1}'
    await served.stop()


async def test_a_problem_of_the_handler_reaches_the_caller_whole(bus: Bus) -> None:
    async def refuse(request: LoginRequest) -> Tokens:
        raise ProblemError.of(Code.TOO_MANY_REQUESTS, "Wait a little.", retry_after=7)

    served = await bus.serve("auth", {AuthMethods.LOGIN: refuse})
    error = await problem_of(
        bus.call(AuthMethods.LOGIN, LoginRequest(username="ada", password="secret"))
    )
    assert error.problem.code is Code.TOO_MANY_REQUESTS
    assert (error.problem.status, error.problem.retry_after) == (429, 7)
    assert error.problem.detail == "Wait a little."
    await served.stop()


async def test_a_secret_in_a_request_arrives_as_it_was(bus: Bus) -> None:
    seen: list[str] = []

    async def take(request: RefreshRequest) -> Empty:
        seen.append(request.refresh_token.get_secret_value())
        return Empty()

    served = await bus.serve("auth", {AuthMethods.LOGOUT: take})
    logout = AuthMethods.LOGOUT.request(refresh_token="s3cret", address=None)
    await bus.call(AuthMethods.LOGOUT, logout)
    assert seen == ["s3cret"]
    await served.stop()


async def test_an_invalid_request_names_its_fields_and_repeats_no_value(bus: Bus) -> None:
    async def never(request: LoginRequest) -> Tokens:
        raise AssertionError("not reached")

    served = await bus.serve("auth", {AuthMethods.LOGIN: never})
    error = await problem_of(bus.call(LAX, Text(text="hunter2")))
    assert error.problem.code is Code.INVALID_REQUEST
    assert {field.pointer for field in error.problem.errors} == {"/username", "/password"}
    assert b"hunter2" not in error.problem.to_json()
    await served.stop()


async def test_an_unexpected_error_tells_the_caller_its_id_only(bus: Bus) -> None:
    async def crash(request: Text) -> Text:
        raise RuntimeError("password=hunter2")

    served = await bus.serve("demo", {ECHO: crash})
    with structlog.testing.capture_logs() as logs:
        error = await problem_of(bus.call(ECHO, Text(text="x")))
    assert error.problem.code is Code.INTERNAL
    assert "hunter2" not in error.problem.detail
    logged = next(line for line in logs if line["event"] == "bus.handler_failed")
    assert logged["error_id"] in error.problem.detail
    await served.stop()


async def test_nobody_there_is_unavailable_with_a_hint_when_to_retry(bus: Bus) -> None:
    error = await problem_of(bus.call(ECHO, Text(text="x")))
    assert error.problem.code is Code.SERVICE_UNAVAILABLE
    assert error.problem.retry_after == 2
    assert "demo service" in error.problem.detail


async def test_a_cluster_without_agents_is_named(bus: Bus) -> None:
    method = ClusterMethod("ping", Text, Text)
    error = await problem_of(bus.call_cluster(method, ClusterId("lab"), Text(text="x")))
    assert "cluster lab" in error.problem.detail
    served = await bus.serve_cluster(ClusterId("lab"), {method: echo})
    assert (await bus.call_cluster(method, ClusterId("lab"), Text(text="x"))).text == "x"
    await served.stop()


async def test_a_call_that_takes_too_long_is_unavailable(bus: Bus) -> None:
    release = asyncio.Event()

    async def wait(request: Text) -> Text:
        await release.wait()
        return request

    served = await bus.serve("demo", {SLOW: wait})
    error = await problem_of(bus.call(SLOW, Text(text="x"), timeout=0.1))
    assert error.problem.code is Code.SERVICE_UNAVAILABLE
    release.set()
    await served.stop()


async def test_a_slow_handler_holds_up_nobody_else(bus: Bus) -> None:
    release = asyncio.Event()

    async def wait(request: Text) -> Text:
        if request.text == "slow":
            await release.wait()
        return request

    served = await bus.serve("demo", {SLOW: wait})
    slow = asyncio.create_task(bus.call(SLOW, Text(text="slow")))
    assert (await bus.call(SLOW, Text(text="fast"))).text == "fast"
    release.set()
    assert (await slow).text == "slow"
    await served.stop()


async def test_handlers_are_bounded_and_a_hopeless_queue_is_refused(bus: Bus) -> None:
    release = asyncio.Event()
    running = most = 0

    async def wait(request: Text) -> Text:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return request

    served = await bus.serve("demo", {SLOW: wait}, concurrency=2)
    calls = [asyncio.create_task(bus.call(SLOW, Text(text=str(n)))) for n in range(16)]
    await eventually(lambda: running == 2)
    with structlog.testing.capture_logs() as logs:
        error = await problem_of(bus.call(SLOW, Text(text="one too many")))
    assert error.problem.code is Code.SERVICE_UNAVAILABLE
    assert "too much to do" in error.problem.detail
    assert any(line["event"] == "bus.request_refused" for line in logs)
    release.set()
    assert [reply.text for reply in await asyncio.gather(*calls)] == [str(n) for n in range(16)]
    assert most == 2
    await served.stop()


async def test_replicas_share_the_work(bus: Bus, nats_server: NatsServer) -> None:
    other = await Bus.connect(nats_server.url, name="other")
    answered: Counter[str] = Counter()

    def answer(name: str) -> object:
        async def handle(request: Text) -> Text:
            answered[name] += 1
            return request

        return handle

    first = await bus.serve("demo", {ECHO: answer("first")})  # type: ignore[dict-item]
    second = await other.serve("demo", {ECHO: answer("second")})  # type: ignore[dict-item]
    await asyncio.gather(*(bus.call(ECHO, Text(text="x")) for _ in range(100)))
    assert sum(answered.values()) == 100
    assert len(answered) == 2
    await first.stop()
    await second.stop()
    await other.close()


async def test_trace_and_request_id_travel_with_the_request(bus: Bus) -> None:
    seen: dict[str, object] = {}

    async def look(request: Text) -> Text:
        seen["trace"] = current_traceparent()
        seen["request"] = structlog.contextvars.get_contextvars().get("request_id")
        return request

    served = await bus.serve("demo", {ECHO: look})
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with tracing(trace), structlog.contextvars.bound_contextvars(request_id="req-1"):
        await bus.call(ECHO, Text(text="x"))
    assert seen == {"trace": trace, "request": "req-1"}
    await served.stop()


async def test_a_stopping_service_answers_what_it_has_taken(bus: Bus) -> None:
    began, release = asyncio.Event(), asyncio.Event()

    async def wait(request: Text) -> Text:
        began.set()
        await release.wait()
        return request

    served = await bus.serve("demo", {SLOW: wait})
    call = asyncio.create_task(bus.call(SLOW, Text(text="last")))
    await began.wait()
    stopping = asyncio.create_task(served.stop())
    await asyncio.sleep(0)
    release.set()
    assert (await call).text == "last"
    await stopping
    assert (await problem_of(bus.call(SLOW, Text(text="x")))).problem.status == 503


async def test_a_stop_cancels_handlers_that_do_not_end(bus: Bus) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def hang(request: Text) -> Text:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return request

    served = await bus.serve("demo", {SLOW: hang})
    call = asyncio.create_task(bus.call(SLOW, Text(text="x"), timeout=1))
    await began.wait()
    await served.stop(timeout=0.05)
    assert ended.is_set()
    await problem_of(call)


async def test_what_is_too_large_is_a_problem_either_way(bus: Bus) -> None:
    async def swell(request: Text) -> Text:
        return Text(text="x" * 2_000_000)

    served = await bus.serve("demo", {ECHO: swell})
    with structlog.testing.capture_logs():
        assert (await problem_of(bus.call(ECHO, Text(text="x")))).problem.code is Code.INTERNAL
    error = await problem_of(bus.call(ECHO, Text(text="x" * 2_000_000)))
    assert error.problem.code is Code.PAYLOAD_TOO_LARGE
    await served.stop()


async def test_an_answer_of_another_shape_is_an_internal_problem(bus: Bus) -> None:
    served = await bus.serve("demo", {ECHO: echo})
    with structlog.testing.capture_logs() as logs:
        error = await problem_of(bus.call(MISREAD, Text(text="x")))
    assert error.problem.code is Code.INTERNAL
    assert any(line["event"] == "bus.reply_unreadable" for line in logs)
    await served.stop()


async def test_a_call_in_flight_fails_at_once_when_the_server_dies_and_service_resumes(
    bus: Bus, nats_server: NatsServer
) -> None:
    began = asyncio.Event()

    async def hang(request: Text) -> Text:
        began.set()
        await asyncio.Event().wait()
        return request

    served = await bus.serve("demo", {SLOW: hang, ECHO: echo})
    call = asyncio.create_task(bus.call(SLOW, Text(text="x"), timeout=600))
    await began.wait()
    nats_server.restart(kill=True)
    assert (await problem_of(call)).problem.code is Code.SERVICE_UNAVAILABLE

    async def answered() -> bool:
        return (await bus.call(ECHO, Text(text="again"))).text == "again"

    await eventually(answered)
    await served.stop(timeout=0)


async def test_a_service_is_visible_to_the_micro_protocol(bus: Bus) -> None:
    async def keys(request: Empty) -> KeySet:
        return KeySet(keys=())

    served = await bus.serve("auth", {AuthMethods.JWKS: keys})
    await bus.call(AuthMethods.JWKS, Empty())
    answer = await bus.link.request("$SRV.INFO.auth")
    info = json.loads(answer.data)
    assert [(e["name"], e["subject"]) for e in info["endpoints"]] == [("jwks", "svc.auth.jwks")]
    await served.stop()


async def test_a_server_that_hangs_while_a_service_begins_is_waited_for(
    nats_server: NatsServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, tries = bus.link.client, 0
    flush = client.flush

    async def flush_soon(timeout: float = 10) -> None:
        nonlocal tries
        tries += 1
        # The vendor's hint is narrower than what it takes.
        await flush(min(timeout, 0.05))  # type: ignore[arg-type]

    monkeypatch.setattr(client, "flush", flush_soon)
    nats_server.pause()
    try:
        beginning = asyncio.create_task(bus.serve("demo", {ECHO: echo}))
        await eventually(lambda: tries > 3 or beginning.done())
        assert not beginning.done()
    finally:
        nats_server.resume()
    served = await beginning
    assert (await bus.call(ECHO, Text(text="here"))).text == "here"
    await served.stop()
