"""Headers: CloudEvents attributes, message ids, and the trace they carry on."""

from datetime import UTC, datetime

import structlog

from streamspace_common.bus import envelope
from streamspace_common.contracts.commands import StopSession
from streamspace_common.contracts.events import UserSignedIn
from streamspace_common.contracts.identity import system_actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId, UserId
from streamspace_common.runtime.tracing import current_traceparent, tracing

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
USER = UserId("usr-" + "0" * 32)
AT = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)


def event() -> UserSignedIn:
    return UserSignedIn(id="e1", at=AT, user_id=USER, actor=system_actor("auth"))


def stop(attempt: int = 1) -> StopSession:
    return StopSession(
        command_id=CommandId("cmd-00000001"),
        attempt=attempt,
        session_id=SessionId("s1"),
        cluster_id=ClusterId("lab"),
        generation=2,
        issued_at=AT,
        deadline=AT,
        actor=system_actor("session"),
    )


def test_an_event_travels_as_a_cloudevent() -> None:
    assert envelope.event_headers(event(), source="auth", trace=TRACE) == {
        "ce-specversion": "1.0",
        "ce-id": "e1",
        "ce-type": "user.signed-in.v1",
        "ce-source": "auth",
        "ce-time": "2026-01-02T03:04:05.600000Z",
        "ce-subject": USER,
        "content-type": "application/json",
        "Nats-Msg-Id": "e1",
        "traceparent": TRACE,
    }


def test_a_reissued_command_is_a_new_message_and_a_retry_is_not() -> None:
    def id_of(attempt: int) -> str:
        return envelope.command_headers(stop(attempt), source="session")["Nats-Msg-Id"]

    assert id_of(1) == id_of(1) == "cmd-00000001.1"
    assert id_of(2) == "cmd-00000001.2"


def test_the_current_trace_is_carried_on_and_a_given_one_wins() -> None:
    with tracing(TRACE):
        assert envelope.event_headers(event(), source="x")["traceparent"] == TRACE
        other = TRACE.replace("0af", "fff")
        assert envelope.event_headers(event(), source="x", trace=other)["traceparent"] == other
        assert envelope.request_headers()["traceparent"] == TRACE


def test_without_a_trace_a_new_one_begins_each_time() -> None:
    first, second = (envelope.event_headers(event(), source="x")["traceparent"] for _ in range(2))
    assert first != second


def test_what_headers_name_is_bound_inside_and_gone_outside() -> None:
    with envelope.carried({"traceparent": TRACE, "X-Request-Id": "req-1"}):
        assert current_traceparent() == TRACE
        assert envelope.request_headers()["X-Request-Id"] == "req-1"
    assert current_traceparent() is None
    assert "request_id" not in structlog.contextvars.get_contextvars()


def test_a_malformed_trace_is_replaced() -> None:
    with envelope.carried({"traceparent": "nonsense"}):
        assert current_traceparent() not in (None, "nonsense")
