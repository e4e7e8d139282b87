"""Messages written in the transaction they tell of, and published afterwards.

A service never publishes beside its database: it enqueues here, in the business
transaction, and `OutboxRelay` publishes what was committed, at least once and in
order, under a message id that makes a second time harmless.
"""

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
    "enqueue_command",
    "enqueue_event",
]


async def enqueue_event(session: AsyncSession, event: Event, *, source: str) -> None:
    """Publish `event` once this transaction has committed.

    Args:
        session: the business transaction; the row is written at its next flush.
        event: what happened. Events about one thing are published in this order.
        source: the publisher, for instance `session`.
    """
    _add(
        session,
        OutboxRow(
            msg_id=event.id,
            subject=event.subject,
            headers=headers.event_headers(event, source, current_traceparent()),
            payload=event.to_json(),
        ),
    )


async def enqueue_command(
    session: AsyncSession,
    command: StartSession | StopSession | HibernateSession | WakeSession,
    *,
    source: str = "session",
) -> None:
    """Send `command` to its cluster once this transaction has committed.

    A newer command of the same session that is committed before this one has left
    takes its place.
    """
    _add(
        session,
        OutboxRow(
            msg_id=commands.message_id(command),
            subject=subjects.command(command.cluster_id, command.session_id),
            headers=headers.command_headers(command, source, current_traceparent()),
            payload=command.to_json(),
            key=command.session_id,
            generation=command.generation,
            attempt=command.attempt,
        ),
    )


def _add(session: AsyncSession, row: OutboxRow) -> None:
    session.add(row)
    session.info[COMMIT_HOOK] = True
