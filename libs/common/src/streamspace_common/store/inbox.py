"""Remembers which messages have had their effect, in the transaction of the effect itself.

Delivery is at least once; recording the message id beside the effect makes the
effect happen once, whatever dies between commit and acknowledgement.
"""

from datetime import timedelta
from typing import cast

from sqlalchemy import CursorResult, delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_common.store.tables import InboxRow


async def first_time(session: AsyncSession, consumer: str, message_id: str) -> bool:
    """Record the message; False when this consumer has already acted on it.

    A second transaction with the same message waits for the first one's outcome.
    """
    inserted = await session.execute(
        insert(InboxRow)
        .values(consumer=consumer, msg_id=message_id)
        .on_conflict_do_nothing()
        .returning(col(InboxRow.msg_id))
    )
    return inserted.scalar_one_or_none() is not None


async def prune(session: AsyncSession, older_than: timedelta) -> int:
    """Forget messages that can no longer be redelivered; returns how many."""
    gone = await session.execute(
        delete(InboxRow).where(col(InboxRow.received_at) < func.clock_timestamp() - older_than)
    )
    return cast("CursorResult[tuple[()]]", gone).rowcount
