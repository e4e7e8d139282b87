"""Messages written in the transaction they tell of, and published afterwards.

A service never publishes beside its database: it enqueues here, in the business
transaction, and `OutboxRelay` publishes what was committed, at least once and in
order, under a message id that makes a second time harmless.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_common.contracts import commands, headers, subjects
from streamspace_common.contracts.commands import (
    HibernateSession,
    StartSession,
    StopSession,
    WakeSession,
)
from streamspace_common.contracts.events import Event
from streamspace_common.runtime.tracing import current_traceparent
from streamspace_common.store.engine import COMMIT_HOOK
from streamspace_common.store.outbox_plan import SupersededCommand
from streamspace_common.store.outbox_publish import Publisher
from streamspace_common.store.outbox_relay import OutboxRelay
from streamspace_common.store.tables import OutboxRow

__all__ = [
    "OutboxRelay",
    "OutboxRow",
    "Publisher",
    "SupersededCommand",
    "enqueue_all",
    "enqueue_command",
    "enqueue_event",
    "enqueue_stored",
]


Command = StartSession | StopSession | HibernateSession | WakeSession

_INSERT_ALL = text(
    """
    INSERT INTO outbox (msg_id, subject, headers, payload, key, generation, attempt)
    SELECT msg_id, subject, CAST(headers AS jsonb), payload, key, generation, attempt
    FROM unnest(
      CAST(:msg_id AS text[]), CAST(:subject AS text[]), CAST(:headers AS text[]),
      CAST(:payload AS bytea[]), CAST(:key AS text[]), CAST(:generation AS bigint[]),
      CAST(:attempt AS bigint[])
    ) WITH ORDINALITY AS new (
      msg_id, subject, headers, payload, key, generation, attempt, position
    ) ORDER BY position
    """
)


async def enqueue_event(session: AsyncSession, event: Event, *, source: str) -> None:
    """Publish `event` once this transaction has committed.

    Args:
        session: the business transaction; the row is written at its next flush.
        event: what happened. Events about one thing are published in this order.
        source: the publisher, for instance `session`.
    """
    _add(session, OutboxRow(**_event_values(event, source, current_traceparent())))


async def enqueue_command(
    session: AsyncSession, command: Command, *, source: str = "session"
) -> None:
    """Send `command` to its cluster once this transaction has committed.

    A newer command of the same session that is committed before this one has left
    takes its place.
    """
    _add(session, OutboxRow(**_command_values(command, source, current_traceparent())))


async def enqueue_stored(
    session: AsyncSession, subject: str, payload: bytes, message_headers: Mapping[str, str]
) -> None:
    """Publish a message once this transaction has committed, just as it is given.

    For what is neither an event nor a command of our own making: a copy of a message.
    Its headers hold the `Nats-Msg-Id` that makes a second publication harmless.
    """
    row = OutboxRow(
        msg_id=message_headers[headers.MESSAGE_ID],
        subject=subject,
        headers=dict(message_headers),
        payload=payload,
    )
    _add(session, row)


async def enqueue_all(
    session: AsyncSession, messages: Sequence[tuple[Event | Command, str | None]], *, source: str
) -> None:
    """Enqueue many messages in one statement, each with the `traceparent` it belongs to."""
    if not messages:
        return
    rows = [
        _event_values(message, source, trace)
        if isinstance(message, Event)
        else _command_values(message, source, trace)
        for message, trace in messages
    ]
    columns = {name: [row.get(name) for row in rows] for name in _COLUMNS}
    columns["headers"] = [json.dumps(row["headers"]) for row in rows]
    connection = await session.connection()
    await connection.execute(_INSERT_ALL, columns)
    session.info[COMMIT_HOOK] = True


_COLUMNS = ("msg_id", "subject", "headers", "payload", "key", "generation", "attempt")


def _event_values(event: Event, source: str, trace: str | None) -> dict[str, Any]:
    return {
        "msg_id": event.id,
        "subject": event.subject,
        "headers": headers.event_headers(event, source, trace),
        "payload": event.to_json(),
    }


def _command_values(command: Command, source: str, trace: str | None) -> dict[str, Any]:
    return {
        "msg_id": commands.message_id(command),
        "subject": subjects.command(command.cluster_id, command.session_id),
        "headers": headers.command_headers(command, source, trace),
        "payload": command.to_json(),
        "key": command.session_id,
        "generation": command.generation,
        "attempt": command.attempt,
    }


def _add(session: AsyncSession, row: OutboxRow) -> None:
    session.add(row)
    session.info[COMMIT_HOOK] = True
