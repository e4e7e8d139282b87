"""The headers around a payload: CloudEvents attributes, message id, trace context.

CloudEvents binary mode: the payload is the contract's JSON and nothing else, the
attributes travel as headers. `Nats-Msg-Id` equals `ce-id`, so that a retry with the
same id is stored once. Everything here is pure but for the random trace ids, and
imports no client, so that an outbox row can be written with the same headers that
a direct publish would send.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import structlog

from streamspace_common.contracts.base import Message
from streamspace_common.contracts.commands import (
    HibernateSession,
    StartSession,
    StopSession,
    WakeSession,
    message_id,
)
from streamspace_common.contracts.events import Event
from streamspace_common.runtime.tracing import current_traceparent, new_traceparent, tracing

TYPE = "ce-type"
ID = "ce-id"
SOURCE = "ce-source"
TIME = "ce-time"
ABOUT = "ce-subject"
CONTENT_TYPE = "content-type"
MESSAGE_ID = "Nats-Msg-Id"
TRACE = "traceparent"
REQUEST_ID = "X-Request-Id"

_JSON = "application/json"


def event_headers(event: Event, *, source: str, trace: str | None = None) -> dict[str, str]:
    """All headers of an event; `trace` defaults to the current one, or a new one."""
    return _headers(event, event.id, event.at, event.about, source, trace)


def command_headers(
    command: StartSession | StopSession | HibernateSession | WakeSession,
    *,
    source: str,
    trace: str | None = None,
) -> dict[str, str]:
    """All headers of a command; a re-issue has another message id than its first issue."""
    return _headers(
        command, message_id(command), command.issued_at, command.session_id, source, trace
    )


def _headers(
    message: Message, id_: str, at: datetime, about: str, source: str, trace: str | None
) -> dict[str, str]:
    return {
        "ce-specversion": "1.0",
        ID: id_,
        TYPE: message.TYPE,
        SOURCE: source,
        TIME: at.isoformat().replace("+00:00", "Z"),
        ABOUT: about,
        CONTENT_TYPE: _JSON,
        MESSAGE_ID: id_,
        TRACE: trace or current_traceparent() or new_traceparent(),
    }


def core_headers(message: Message) -> dict[str, str]:
    """The few headers of a fire-and-forget message."""
    return {"ce-specversion": "1.0", TYPE: message.TYPE, CONTENT_TYPE: _JSON}


def request_headers() -> dict[str, str]:
    """What a request carries on: the trace, and the caller's request id where known."""
    headers = {CONTENT_TYPE: _JSON, TRACE: current_traceparent() or new_traceparent()}
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if isinstance(request_id, str):
        headers[REQUEST_ID] = request_id
    return headers


@contextmanager
def carried(headers: Mapping[str, str]) -> Iterator[None]:
    """Work inside belongs to the trace and request the headers name.

    Every log line says so, and everything published or asked from inside carries
    both on.
    """
    request_id = headers.get(REQUEST_ID)
    ids = {"request_id": request_id} if request_id else {}
    with tracing(headers.get(TRACE)), structlog.contextvars.bound_contextvars(**ids):
        yield
