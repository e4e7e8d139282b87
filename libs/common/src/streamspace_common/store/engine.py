"""The engine, and the transaction at the edge of every request and message.

One request or message is one transaction: it begins and commits in
`Database.transaction`, never further inside. After PostgreSQL was away the next
transaction works: a connection that its driver knows to be closed is thrown away
before use (this costs no round trip, unlike a ping), and errors of a connection
that dies in the middle become `StoreUnavailableError`. So does an answer that does not
come: its connection is thrown away, and with it all that are as old (see `silence`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
from sqlalchemy import event, func, select
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.ext.asyncio import AsyncSession as PlainAsyncSession
from sqlalchemy.orm import Session as PlainSession
from sqlmodel import Session
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_common.store.address import address
from streamspace_common.store.errors import StoreUnavailableError, translate, unreachable
from streamspace_common.store.silence import NO_ANSWER, SERVER_SIDE, limit_transactions, watch

COMMIT_HOOK: Final = "streamspace.after_commit"
"""Key in `session.info`: set by whoever wants `Database.on_commit` listeners called."""

_CONNECT_TIMEOUT: Final = 5.0
_SERVER_SETTINGS: Final = {
    # A statement that takes longer than any we have is a fault, not a load. Below NO_ANSWER.
    "statement_timeout": "10000",
    # A lock held longer than this is held by something stuck.
    "lock_timeout": "5000",
    # A transaction nobody goes on with must not hold locks for ever: its rows wait for this
    # long where a connection falls silent between two statements.
    "idle_in_transaction_session_timeout": "10000",
    **SERVER_SIDE,
    "timezone": "UTC",
    # Plans pay off; compiling them to machine code does not, in short transactions.
    "jit": "off",
}


def create_engine(url: str, *, pool_size: int = 10, application: str = "") -> AsyncEngine:
    """An engine on asyncpg with timeouts that a short transaction never meets.

    Args:
        url: `postgresql://user:password@host:port/database`, with `sslmode` and
            `sslrootcert` as libpq takes them.
        pool_size: connections kept open; half as many again are opened under load.
        application: shown in `pg_stat_activity`.
    """
    settings = dict(_SERVER_SETTINGS)
    if application:
        settings["application_name"] = application
    where, protection = address(url)
    engine = create_async_engine(
        where,
        pool_size=pool_size,
        max_overflow=max(pool_size // 2, 1),
        pool_timeout=5.0,
        pool_recycle=1800,
        # After silent connections were noticed, those who come one at a time meet new ones.
        pool_use_lifo=True,
        # An error quotes its statement in the log; the values may be secrets.
        hide_parameters=True,
        connect_args={
            "timeout": _CONNECT_TIMEOUT,
            "command_timeout": NO_ANSWER,
            "server_settings": settings,
            **protection,
        },
    )
    watch(engine.sync_engine)
    limit_transactions(engine.sync_engine)
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(dbapi_connection: Any, _record: object, _proxy: object) -> None:
    if dbapi_connection.driver_connection.is_closed():
        raise DisconnectionError


class _SyncSession(Session):
    # SQLModel warns of `execute` at each call; for Core statements it is the right one.
    execute = PlainSession.execute


class StoreSession(AsyncSession):
    """SQLModel's session; `exec` for models, `execute` for Core statements."""

    sync_session_class = _SyncSession
    execute = PlainAsyncSession.execute


class Database:
    """A service's database: sessions, health, and news of commits."""

    def __init__(self, engine: AsyncEngine, *, protection: Mapping[str, Any] | None = None) -> None:
        self.engine = engine
        self.protection = dict(protection or {})
        """How the connections that are not the engine's are encrypted (see `address`)."""
        self.sessions: async_sessionmaker[StoreSession] = async_sessionmaker(
            engine, class_=StoreSession, expire_on_commit=False, autoflush=True
        )
        self._commit_listeners: list[Callable[[], None]] = []

    @classmethod
    def connect(cls, url: str, *, pool_size: int = 10, application: str = "") -> "Database":
        """A database by URL. Connects when first used."""
        engine = create_engine(url, pool_size=pool_size, application=application)
        return cls(engine, protection=address(url)[1])

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each commit that wrote to the outbox."""
        self._commit_listeners.append(listener)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[StoreSession]:
        """A session whose work is committed at the end of the block, or not at all.

        Raises:
            StoreUnavailableError: PostgreSQL is away or too busy. Nothing was kept,
                but for a connection lost in the very commit, which may or may not be;
                callers retry with the same ids.
        """
        session = self.sessions()
        with _in_our_words():
            try:
                with _connecting():
                    await session.connection()
                yield session
                await session.commit()
            except BaseException:
                await self._abandon(session)
                raise
            finally:
                await session.close()
        if session.info.get(COMMIT_HOOK):
            for listener in self._commit_listeners:
                listener()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[asyncpg.Connection]:
        """The driver's own connection: each statement is a transaction of its own.

        It saves two of the three round trips of a transaction that only reads, and what
        SQLAlchemy adds to a statement, which is more than the driver takes for it.

        Raises:
            StoreUnavailableError: PostgreSQL is away or too busy.
        """
        with _in_our_words():
            async with AsyncExitStack() as stack:
                with _connecting():
                    connection = await stack.enter_async_context(self.engine.connect())
                pooled = await connection.get_raw_connection()
                try:
                    yield pooled.driver_connection
                except TimeoutError as error:
                    # As SQLAlchemy does with its own: also with what is as old.
                    self.engine.sync_engine.pool._invalidate(pooled, error)  # noqa: SLF001
                    raise unreachable() from error
                except asyncio.CancelledError as error:
                    # Whoever gets it next must not wait for an answer that may never come.
                    await connection.invalidate(error)
                    raise

    async def ping(self) -> bool:
        """Whether PostgreSQL answers, for readiness."""
        try:
            async with self.transaction() as session:
                await session.execute(select(1))
        except StoreUnavailableError:
            return False
        return True

    async def now(self, session: AsyncSession) -> datetime:
        """The database's clock, which alone decides deadlines, so replicas agree.

        It moves on during a transaction.
        """
        moment: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
        return moment.astimezone(UTC)

    async def dispose(self) -> None:
        """Close all connections."""
        await self.engine.dispose()

    @staticmethod
    async def _abandon(session: AsyncSession) -> None:
        try:
            await session.rollback()
        except Exception as error:
            # The first error tells more than a rollback on a connection that is gone.
            if translate(error) is None:
                raise


@contextmanager
def _in_our_words() -> Iterator[None]:
    """The one place where the drivers' errors become ours."""
    try:
        yield
    except StoreUnavailableError:
        raise
    except Exception as error:
        if (ours := translate(error)) is not None:
            raise ours from error
        raise


@contextmanager
def _connecting() -> Iterator[None]:
    """A refused connection shows as an OSError; anywhere later it would be somebody else's."""
    try:
        yield
    except (OSError, TimeoutError) as error:
        raise unreachable() from error
