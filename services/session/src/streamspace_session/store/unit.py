"""The unit of work: one database transaction with everything the handlers need in it.

What is told and sent goes to the outbox in the same transaction, so it is published
exactly when the change it speaks of is committed.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_common.contracts.events import CoreEvent
from streamspace_common.runtime.tracing import current_traceparent, new_traceparent
from streamspace_common.store import inbox
from streamspace_common.store.engine import Database
from streamspace_common.store.outbox import enqueue_all, enqueue_stored
from streamspace_session.domain import Message
from streamspace_session.ports import IdTakenError, Listed, ListQuery, Retention, Transaction
from streamspace_session.store.accounts import SqlAccounts
from streamspace_session.store.cluster_access import SqlClusterAccess
from streamspace_session.store.clusters import SqlClusters
from streamspace_session.store.history import SqlHistory
from streamspace_session.store.letters import SqlDeadLetters
from streamspace_session.store.pages import SqlPages
from streamspace_session.store.places import SqlPlaces
from streamspace_session.store.requests import SqlRequests, SqlTickets
from streamspace_session.store.sessions import SqlSessions
from streamspace_session.store.templates import ManifestCache, SqlTemplates

SOURCE = "session"
_IDS = ("sessions_pkey", "commands_pkey")
CONSUMER = "session"
"""Under this name the inbox keeps what this service has acted on."""

_NOW = text("SELECT clock_timestamp()")
_PRUNE = (
    "DELETE FROM idempotency WHERE created_at < clock_timestamp() - CAST(:idempotency AS interval)",
    """
    DELETE FROM tickets t WHERE expires_at < clock_timestamp() - CAST(:tickets AS interval)
      AND (used_at IS NULL OR NOT EXISTS (
        SELECT FROM sessions s WHERE s.id = t.session_id
          AND s.state NOT IN ('terminated', 'failed')))
    """,
    "DELETE FROM agents WHERE heard_at < clock_timestamp() - CAST(:agents AS interval)",
    "DELETE FROM dead_letters WHERE settled_at < clock_timestamp() - CAST(:letters AS interval)",
    """
    DELETE FROM removed_clusters WHERE removed_at < clock_timestamp() - CAST(:removed AS interval)
    """,
    "DELETE FROM session_history WHERE at < clock_timestamp() - CAST(:history AS interval)",
    """
    DELETE FROM manifests m
    WHERE NOT EXISTS (SELECT FROM templates t WHERE t.id = m.template_id AND t.digest = m.digest)
      AND NOT EXISTS (SELECT FROM sessions s WHERE s.template_id = m.template_id
        AND s.template_digest = m.digest AND s.state NOT IN ('terminated', 'failed'))
    """,
)


class SqlTransaction:
    """`ports.Transaction` on one database session."""

    def __init__(
        self, session: AsyncSession, connection: AsyncConnection, cache: ManifestCache
    ) -> None:
        self._session = session
        self._connection = connection
        self._now: datetime | None = None
        self._told: list[tuple[CoreEvent, str]] = []
        self._sent: list[tuple[Message, str]] = []
        self.sessions = SqlSessions(connection, self._see_time)
        self.clusters = SqlClusters(connection, self.now)
        self.access = SqlClusterAccess(connection, self.now)
        self.templates = SqlTemplates(connection, cache, self._see_time)
        self.accounts = SqlAccounts(connection)
        self.places = SqlPlaces(connection)
        self.letters = SqlDeadLetters(connection)
        self.history = SqlHistory(connection)
        self.tickets = SqlTickets(connection)
        self.requests = SqlRequests(connection, self.now)

    async def now(self) -> datetime:
        if self._now is None:
            found = await self._connection.execute(_NOW)
            self._see_time(found.scalar_one())
        if self._now is None:
            raise RuntimeError("the database told no time")
        return self._now

    def _see_time(self, now: datetime) -> None:
        if self._now is None:
            self._now = now.astimezone(UTC)

    async def first_times(self, message_ids: Iterable[str]) -> set[str]:
        return await inbox.first_times(self._session, CONSUMER, message_ids)

    def tell(self, event: CoreEvent) -> None:
        self._told.append((event, _trace()))

    def send(self, command: Message) -> None:
        self._sent.append((command, _trace()))

    async def post(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        await enqueue_stored(self._session, subject, payload, headers)

    async def prune(self, limits: Retention) -> None:
        values = {
            "idempotency": limits.idempotency,
            "tickets": limits.tickets,
            "agents": limits.agents,
            "letters": limits.letters,
            "removed": limits.removed,
            "history": limits.history,
        }
        for statement in _PRUNE:
            named = {name: value for name, value in values.items() if f":{name}" in statement}
            await self._connection.execute(text(statement), named)
        await inbox.prune(self._session, limits.inbox)

    async def flush(self) -> None:
        """Write what was told and sent to outbox and history; the commit follows."""
        await self.history.record(self._told)
        await enqueue_all(self._session, [*self._sent, *self._told], source=SOURCE)


def _trace() -> str:
    """The trace at hand, or a new one: outbox and history have to name the same."""
    return current_traceparent() or new_traceparent()


class SqlStore:
    """`ports.Store` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache = ManifestCache()
        self._pages = SqlPages(database)

    async def page(self, query: ListQuery) -> Listed:
        return await self._pages.page(query)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        try:
            async with self._database.transaction() as session:
                unit = SqlTransaction(session, await session.connection(), self._cache)
                yield unit
                await unit.flush()
        except IntegrityError as error:
            if any(constraint in str(error.orig) for constraint in _IDS):
                raise IdTakenError from error
            raise
