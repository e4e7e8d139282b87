"""Tickets and remembered requests in PostgreSQL."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, text, update
from sqlalchemy import Row as ResultRow
from sqlalchemy.ext.asyncio import AsyncConnection

from streamspace_common.contracts.ids import CommandId, SessionId, UserId
from streamspace_common.contracts.sessions import ViewerRole
from streamspace_session.ports import Remembered, RequestKey, TicketRecord
from streamspace_session.store.tables import IdempotencyRow, TicketRow

_TICKETS = TicketRow.__table__  # type: ignore[attr-defined]
_IDEMPOTENCY = IdempotencyRow.__table__  # type: ignore[attr-defined]

_CLAIM = text(
    """
    INSERT INTO idempotency (owner_id, key, request_hash, created_at)
    SELECT owner_id, key, request_hash, CAST(:now AS timestamptz)
    FROM unnest(CAST(:owners AS text[]), CAST(:keys AS text[]), CAST(:hashes AS bytea[]))
      AS asked (owner_id, key, request_hash)
    ON CONFLICT DO NOTHING RETURNING owner_id, key
    """
)
_REMEMBER = (
    update(_IDEMPOTENCY)
    .where(
        _IDEMPOTENCY.c.owner_id == bindparam("owner"), _IDEMPOTENCY.c.key == bindparam("used_key")
    )
    .values({name: bindparam(name) for name in ("request_hash", "session_id", "command_id")})
)


class SqlTickets:
    """`ports.Tickets` inside one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def issue(self, digest: bytes, ticket: TicketRecord) -> None:
        await self._connection.execute(
            insert(_TICKETS).values(
                digest=digest,
                session_id=ticket.session_id,
                user_id=ticket.user_id,
                username=ticket.username,
                role=ticket.role.value,
                expires_at=ticket.expires_at,
                traceparent=ticket.traceparent,
            )
        )

    async def use(self, digest: bytes, session: SessionId) -> TicketRecord | None:
        # One statement: of two that come at once, one finds used_at set.
        found = await self._connection.execute(
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
        found = await self._connection.execute(select(_TICKETS).where(_TICKETS.c.digest == digest))
        return _ticket(found.one_or_none())

    async def admitted(self, session: SessionId, user: UserId) -> bool:
        found = await self._connection.execute(
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

    def __init__(self, connection: AsyncConnection, now: Callable[[], Awaitable[datetime]]) -> None:
        self._connection = connection
        self._now = now

    async def claim(self, requests: Mapping[RequestKey, bytes]) -> dict[RequestKey, Remembered]:
        # Everybody claims in this order, so nobody waits in a circle.
        keys = sorted(requests)
        ours = await self._connection.execute(
            _CLAIM,
            {
                "owners": [one.owner for one in keys],
                "keys": [one.key for one in keys],
                "hashes": [requests[one] for one in keys],
                "now": await self._now(),
            },
        )
        claimed = {RequestKey(UserId(row.owner_id), row.key) for row in ours}
        return {
            key: Remembered(row.request_hash, SessionId(row.session_id), CommandId(row.command_id))
            for key in keys
            if key not in claimed
            for row in await self._connection.execute(select(_IDEMPOTENCY).where(*_is(key)))
        }

    async def remember(self, used: Mapping[RequestKey, Remembered]) -> None:
        await self._connection.execute(
            _REMEMBER,
            [
                {
                    "owner": key.owner,
                    "used_key": key.key,
                    "request_hash": one.request_hash,
                    "session_id": one.session_id,
                    "command_id": one.command_id,
                }
                for key, one in sorted(used.items(), key=itemgetter(0))
            ],
        )

    async def release(self, keys: Collection[RequestKey]) -> None:
        for key in sorted(keys):
            await self._connection.execute(delete(_IDEMPOTENCY).where(*_is(key)))


def _is(key: RequestKey) -> tuple[ColumnElement[bool], ...]:
    return _IDEMPOTENCY.c.owner_id == key.owner, _IDEMPOTENCY.c.key == key.key


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
        traceparent=row.traceparent,
    )
