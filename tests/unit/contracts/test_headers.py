"""A message carries the same headers whichever way it was published."""

from datetime import UTC, datetime, timedelta

from streamspace_common.contracts.commands import StopSession
from streamspace_common.contracts.events import UserSignedIn
from streamspace_common.contracts.headers import command_headers, event_headers
from streamspace_common.contracts.identity import system_actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId, UserId

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
USER = UserId("usr-" + "a" * 32)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_event_is_a_cloud_event_with_its_id_as_message_id() -> None:
    event = UserSignedIn(id="e1", at=NOW, actor=system_actor("auth"), user_id=USER)
    assert event_headers(event, "auth", PARENT) == {
        "ce-specversion": "1.0",
        "ce-id": "e1",
        "ce-type": "user.signed-in.v1",
        "ce-source": "auth",
        "ce-time": "2026-01-02T03:04:05+00:00",
        "ce-subject": USER,
        "content-type": "application/json",
        "Nats-Msg-Id": "e1",
        "traceparent": PARENT,
    }


def test_without_a_trace_there_is_no_trace_header() -> None:
    event = UserSignedIn(id="e1", at=NOW, actor=system_actor("auth"), user_id=USER)
    assert "traceparent" not in event_headers(event, "auth")


def test_a_reissued_command_is_a_new_message() -> None:
    command = StopSession(
        command_id=CommandId("cmd-00000001"),
        session_id=SessionId("s1"),
        cluster_id=ClusterId("c1"),
        generation=7,
        issued_at=NOW,
        deadline=NOW + timedelta(minutes=1),
        actor=system_actor("session"),
    )
    again = command.model_copy(update={"attempt": 2})
    assert command_headers(command, "session")["Nats-Msg-Id"] == "cmd-00000001.1"
    assert command_headers(again, "session")["Nats-Msg-Id"] == "cmd-00000001.2"
    assert command_headers(again, "session")["x-generation"] == "7"
    assert command_headers(again, "session")["ce-subject"] == "s1"
