"""Brings a service's database to the service's newest migration, at start-up.

Migrations are the Alembic versions in `<package>/migrations/versions`; the
environment they run in is shared (`store/alembic_env/env.py`). An advisory lock
lets replicas start together: one migrates, the others wait and find it done. All
pending migrations run in one transaction, so a failed one leaves nothing behind.

A migration takes as long as it takes. Nearly always none is pending: that is looked up first,
on a connection that is given up when it falls silent (see `silence`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeVar

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.supervisor import FatalError
from streamspace_common.store.address import address
from streamspace_common.store.errors import StoreUnavailableError, translate
from streamspace_common.store.silence import NO_ANSWER, SERVER_SIDE, watch

log = get_logger(__name__)

_Result = TypeVar("_Result")

ATTEMPTS: Final = 120
PAUSE: Final = 0.5
"""Seconds between attempts: by default a minute in all, the time a database needs to start."""
_SERVER_SETTINGS: Final = {
    "timezone": "UTC",
    **SERVER_SIDE,
    # Milliseconds; no migration thinks for five minutes between two statements. The lock of
    # one that nobody hears of is free again then.
    "idle_in_transaction_session_timeout": "300000",
}


def alembic_config(package: str) -> Config:
    """Alembic's configuration for the migrations inside `package`; also for `alembic` itself."""
    config = Config()
    environment = Path(str(files("streamspace_common.store").joinpath("alembic_env")))
    versions = Path(str(files(package).joinpath("migrations", "versions")))
    config.set_main_option("script_location", _escaped(environment))
    config.set_main_option("version_locations", _escaped(versions))
    config.set_main_option("path_separator", "newline")
    return config


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")


async def migrate(
    url: str, package: str, *, attempts: int = ATTEMPTS, pause: float = PAUSE
) -> None:
    """Wait for PostgreSQL, then run what is pending of the package's migrations.

    Raises:
        FatalError: PostgreSQL did not come up in `attempts` tries `pause` seconds apart,
            refuses us, or the database is newer than this program.
    """
    looking = _engine(url, command_timeout=NO_ANSWER)
    try:
        if await _patiently(lambda: _nothing_pending(looking, package), attempts, pause):
            return
    finally:
        await looking.dispose()
    working = _engine(url, command_timeout=None)
    try:
        connection = await _patiently(working.connect, attempts, pause)
        try:
            await _upgrade(connection, package)
        finally:
            await connection.close()
    finally:
        await working.dispose()


def _engine(url: str, *, command_timeout: float | None) -> AsyncEngine:
    where, protection = address(url)
    engine = create_async_engine(
        where,
        poolclass=NullPool,
        connect_args={
            "timeout": 5.0,
            "command_timeout": command_timeout,
            "server_settings": _SERVER_SETTINGS,
            **protection,
        },
    )
    watch(engine.sync_engine)
    return engine


async def _nothing_pending(engine: AsyncEngine, package: str) -> bool:
    """Whether the database is at the newest migration already.

    Raises:
        FatalError: it is at one that this program does not know.
    """
    async with engine.connect() as connection:
        return await connection.run_sync(_is_newest, package)


async def _patiently(
    step: Callable[[], Awaitable[_Result]], attempts: int, pause: float
) -> _Result:
    """Do what needs PostgreSQL as soon as it is there."""
    for attempt in range(1, attempts + 1):
        try:
            return await step()
        except (OSError, StoreUnavailableError, asyncpg.PostgresError, DBAPIError) as error:
            if not isinstance(error, OSError | StoreUnavailableError) and translate(error) is None:
                raise FatalError(f"PostgreSQL refuses the connection: {_reason(error)}") from error
            if attempt == 1 or attempt % 10 == 0:
                log.info("waiting for PostgreSQL", reason=_reason(error), attempt=attempt)
            await asyncio.sleep(pause)
    raise FatalError(
        f"PostgreSQL did not come up within {attempts * pause:.0f} s; check the database URL."
    )


def _reason(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).partition("\n")[0] or type(cause).__name__


async def _upgrade(connection: AsyncConnection, package: str) -> None:
    # A lock of the session, since it has to outlive Alembic's transaction. The key is the
    # package: two services that share a server, and by mistake a database, wait too.
    key = {"key": f"streamspace:migrate:{package}"}
    await connection.execute(text("SELECT pg_advisory_lock(hashtextextended(:key, 0))"), key)
    await connection.commit()
    try:
        await connection.run_sync(_run_alembic, package)
        await connection.commit()
    finally:
        await connection.rollback()
        await connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:key, 0))"), key)
        await connection.commit()


def _is_newest(connection: Connection, package: str) -> bool:
    scripts = ScriptDirectory.from_config(alembic_config(package))
    return _known_revision(connection, scripts, package) in scripts.get_heads()


def _run_alembic(connection: Connection, package: str) -> None:
    config = alembic_config(package)
    config.attributes["connection"] = connection
    before = _known_revision(connection, ScriptDirectory.from_config(config), package)
    command.upgrade(config, "head")
    after = _revision(connection)
    if after != before:
        log.info("database migrated", package=package, before=before, after=after)


def _known_revision(connection: Connection, scripts: ScriptDirectory, package: str) -> str | None:
    before = _revision(connection)
    known = {script.revision for script in scripts.walk_revisions()}
    if before is not None and before not in known:
        raise FatalError(
            f"The database is at migration {before}, which this version of {package} does not "
            "know: it was migrated by a newer version. Run that one, or restore a backup."
        )
    return before


def _revision(connection: Connection) -> str | None:
    exists = connection.execute(text("SELECT to_regclass('alembic_version')")).scalar()
    if exists is None:
        return None
    revision: str | None = connection.execute(
        text("SELECT version_num FROM alembic_version")
    ).scalar()
    return revision
