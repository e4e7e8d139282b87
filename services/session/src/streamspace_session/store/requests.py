"""Tickets and remembered requests in PostgreSQL."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Row as ResultRow
from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_common.contracts.ids import CommandId, SessionId, UserId
from streamspace_common.contracts.sessions import ViewerRole
from streamspace_session.ports import Remembered, TicketRecord
from streamspace_session.store.tables import IdempotencyRow, TicketRow

_TICKETS = TicketRow.__table__  # type: ignore[attr-defined]
_IDEMPOTENCY = IdempotencyRow.__table__  # type: ignore[attr-defined]


class SqlTickets:
    """`ports.Tickets` inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def issue(self, digest: bytes, ticket: TicketRecord) -> None:
        await self._session.execute(
            insert(_TICKETS).values(
                digest=digest,
                session_id=ticket.session_id,
                user_id=ticket.user_id,
                username=ticket.username,
                role=ticket.role.value,
                expires_at=ticket.expires_at,
            )
        )

    async def use(self, digest: bytes, session: SessionId) -> TicketRecord | None:
        # One statement: of two that come at once, one finds used_at set.
        found = await self._session.execute(
            update(_TICKETS)
            .where(
                _TICKETS.c.digest == digest,
                _TICKETS.c.session_id == session,
                _TICKETS.c.used_at.is_(None),
                _TICKETS.c.expires_at > func.clock_timestamp(),
            )
            .values(used_at=func.clock_timestamp())
            .returning(_TICKETS)
        )
        return _ticket(found.one_or_none())

    async def look(self, digest: bytes) -> TicketRecord | None:
        found = await self._session.execute(select(_TICKETS).where(_TICKETS.c.digest == digest))
        return _ticket(found.one_or_none())

    async def admitted(self, session: SessionId, user: UserId) -> bool:
        found = await self._session.execute(
            select(_TICKETS.c.digest)
            .where(
                _TICKETS.c.session_id == session,
                _TICKETS.c.user_id == user,
                _TICKETS.c.used_at.is_not(None),
            )
            .limit(1)
        )
        return found.first() is not None


class SqlRequests:
    """`ports.Requests` inside one transaction; `now` gives the transaction's time."""

    def __init__(self, session: AsyncSession, now: Callable[[], Awaitable[datetime]]) -> None:
        self._session = session
        self._now = now

    async def claim(self, owner: UserId, key: str, request_hash: bytes) -> Remembered | None:
        ours = await self._session.execute(
            upsert(_IDEMPOTENCY)
            .values(
                owner_id=owner, key=key, request_hash=request_hash, created_at=await self._now()
            )
            .on_conflict_do_nothing()
            .returning(_IDEMPOTENCY.c.key)
        )
        if ours.first() is not None:
            return None
        row = (
            await self._session.execute(
                select(_IDEMPOTENCY).where(
                    _IDEMPOTENCY.c.owner_id == owner, _IDEMPOTENCY.c.key == key
                )
            )
        ).one()
        return Remembered(row.request_hash, SessionId(row.session_id), CommandId(row.command_id))

    async def remember(
        self, owner: UserId, key: str, session: SessionId, command: CommandId
    ) -> None:
        await self._session.execute(
            update(_IDEMPOTENCY)
            .where(_IDEMPOTENCY.c.owner_id == owner, _IDEMPOTENCY.c.key == key)
            .values(session_id=session, command_id=command)
        )


def _ticket(row: ResultRow[Any] | None) -> TicketRecord | None:
    if row is None:
        return None
    return TicketRecord(
        session_id=SessionId(row.session_id),
        user_id=UserId(row.user_id),
        username=row.username,
        role=ViewerRole(row.role),
        expires_at=row.expires_at,
        used_at=row.used_at,
    )
