"""Remembers which messages have had their effect, in the transaction of the effect itself.

Delivery is at least once; recording the message id beside the effect makes the
effect happen once, whatever dies between commit and acknowledgement.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import cast

from sqlalchemy import CursorResult, delete, func, text
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_common.store.tables import InboxRow

# One statement for any number of ids: one per number would be planned anew each time.
_FIRST_TIMES = text(
    """
    INSERT INTO inbox (consumer, msg_id)
    SELECT CAST(:consumer AS text), msg_id FROM unnest(CAST(:ids AS text[])) AS seen (msg_id)
    ON CONFLICT DO NOTHING RETURNING msg_id
    """
)


async def first_times(session: AsyncSession, consumer: str, message_ids: Iterable[str]) -> set[str]:
    """Record the messages; those that this consumer has not acted on before.

    A second transaction with one of these messages waits for the first one's outcome;
    sorted ids keep two such batches from waiting for each other.
    """
    ids = sorted(set(message_ids))
    if not ids:
        return set()
    inserted = await session.execute(_FIRST_TIMES, {"consumer": consumer, "ids": ids})
    return set(inserted.scalars())


async def first_time(session: AsyncSession, consumer: str, message_id: str) -> bool:
    """`first_times` of one message; False when it was acted on before."""
    return bool(await first_times(session, consumer, [message_id]))


async def prune(session: AsyncSession, older_than: timedelta) -> int:
    """Forget messages that can no longer be redelivered; returns how many."""
    gone = await session.execute(
        delete(InboxRow).where(col(InboxRow.received_at) < func.clock_timestamp() - older_than)
    )
    return cast("CursorResult[tuple[()]]", gone).rowcount
