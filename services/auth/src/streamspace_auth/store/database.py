"""The store itself: one database transaction is one unit of work."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_auth.ports import Accounts, BusAccounts, Clusters, Families, LoginFailures
from streamspace_auth.settings import SERVICE
from streamspace_auth.store.accounts import AccountRows, LoginFailureRows
from streamspace_auth.store.clusters import BusAccountRows, ClusterRows
from streamspace_auth.store.families import FamilyRows
from streamspace_auth.store.rows import SigningKeyRow
from streamspace_common.contracts.events import CoreEvent
from streamspace_common.store.engine import Database
from streamspace_common.store.outbox import enqueue_event


@dataclass(frozen=True)
class SealedKey:
    """A signing key as the database holds it: its private half is encrypted."""

    kid: str
    sealed_private: bytes
    created_at: datetime
    active_from: datetime


class SigningKeyRows:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def all(self) -> tuple[SealedKey, ...]:
        rows = await self._session.exec(select(SigningKeyRow))
        return tuple(
            SealedKey(row.kid, row.sealed_private, row.created_at, row.active_from) for row in rows
        )

    async def add(self, key: SealedKey) -> None:
        self._session.add(
            SigningKeyRow(
                kid=key.kid,
                sealed_private=key.sealed_private,
                created_at=key.created_at,
                active_from=key.active_from,
            )
        )
        await self._session.flush()

    async def forget(self, kids: Sequence[str]) -> None:
        await self._session.exec(delete(SigningKeyRow).where(col(SigningKeyRow.kid).in_(kids)))


class UnitOfWork:
    """Implements `ports.Transaction`, and holds the signing keys besides."""

    def __init__(self, session: AsyncSession, now: datetime) -> None:
        self._session = session
        self.now = now
        self.accounts: Accounts = AccountRows(session)
        self.failures: LoginFailures = LoginFailureRows(session)
        self.families: Families = FamilyRows(session)
        self.clusters: Clusters = ClusterRows(session)
        self.bus_accounts: BusAccounts = BusAccountRows(session)
        self.signing_keys = SigningKeyRows(session)

    async def emit(self, event: CoreEvent) -> None:
        await enqueue_event(self._session, event, source=SERVICE)

    async def exclusively(self, what: str) -> None:
        lock = func.pg_advisory_xact_lock(func.hashtextextended(f"streamspace:auth:{what}", 0))
        await self._session.exec(select(lock))


class AuthStore:
    """Implements `ports.Store` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[UnitOfWork]:
        """Kept at the end of the block, or not at all.

        Raises:
            StoreUnavailableError: the database is away or too busy.
        """
        async with self._database.transaction() as session:
            yield UnitOfWork(session, await self._database.now(session))
