"""The headers a message travels with: CloudEvents attributes beside a JSON payload.

Whoever publishes (the bus directly, or a service's outbox) builds them here, so
that a message looks the same whichever way it took. `Nats-Msg-Id` equals `ce-id`:
the stream stores a retried message once.
"""

from typing import Final

from streamspace_common.contracts import commands
from streamspace_common.contracts.commands import (
    HibernateSession,
    StartSession,
    StopSession,
    WakeSession,
)
from streamspace_common.contracts.events import Event

SPEC_VERSION: Final = "ce-specversion"
ID: Final = "ce-id"
TYPE: Final = "ce-type"
SOURCE: Final = "ce-source"
TIME: Final = "ce-time"
SUBJECT: Final = "ce-subject"
CONTENT_TYPE: Final = "content-type"
MESSAGE_ID: Final = "Nats-Msg-Id"
TRACE_PARENT: Final = "traceparent"
GENERATION: Final = "x-generation"
"""On commands only, so that a reader may compare two commands without their payloads."""
ATTEMPT: Final = "x-attempt"


def _attributes(
    *, id_: str, type_: str, source: str, time: str, subject: str, traceparent: str | None
) -> dict[str, str]:
    headers = {
        SPEC_VERSION: "1.0",
        ID: id_,
        TYPE: type_,
        SOURCE: source,
        TIME: time,
        SUBJECT: subject,
        CONTENT_TYPE: "application/json",
        MESSAGE_ID: id_,
    }
    if traceparent is not None:
        headers[TRACE_PARENT] = traceparent
    return headers


def event_headers(event: Event, source: str, traceparent: str | None = None) -> dict[str, str]:
    """Headers of an event; `source` names the publisher, for instance `session`."""
    return _attributes(
        id_=event.id,
        type_=event.TYPE,
        source=source,
        time=event.at.isoformat(),
        subject=event.about,
        traceparent=traceparent,
    )


def command_headers(
    command: StartSession | StopSession | HibernateSession | WakeSession,
    source: str,
    traceparent: str | None = None,
) -> dict[str, str]:
    """Headers of a command; a re-issue (a higher `attempt`) is a new message."""
    headers = _attributes(
        id_=commands.message_id(command),
        type_=command.TYPE,
        source=source,
        time=command.issued_at.isoformat(),
        subject=command.session_id,
        traceparent=traceparent,
    )
    headers[GENERATION] = str(command.generation)
    headers[ATTEMPT] = str(command.attempt)
    return headers
