"""Migrations run by themselves, once, in order, or not at all."""

import asyncio
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from streamspace_common.runtime.supervisor import FatalError
from streamspace_common.store.engine import Database
from streamspace_common.store.migrate import migrate
from streamspace_common.testing.postgres import PostgresServer

MakePackage = Callable[..., str]


@pytest.fixture(scope="session")
def migrations_package() -> None:
    """These tests bring their own, to an empty database."""


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePackage:
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(*upgrades: str, name: str | None = None) -> str:
        package = name or f"sample_{uuid4().hex}"
        versions = tmp_path / package / "migrations" / "versions"
        versions.mkdir(parents=True, exist_ok=True)
        (tmp_path / package / "__init__.py").touch()
        for number, upgrade in enumerate(upgrades, start=1):
            down = f"{number - 1:04}" if number > 1 else None
            (versions / f"{number:04}_step.py").write_text(
                textwrap.dedent(f"""
                from alembic import op
                revision = "{number:04}"
                down_revision = {down!r}
                def upgrade():
                    {upgrade}
                """)
            )
        sys.modules.pop(package, None)
        return package

    return make


async def tables(database: Database) -> set[str]:
    async with database.transaction() as session:
        rows = await session.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        )
        return {row.tablename for row in rows}


async def revision(database: Database) -> str:
    async with database.transaction() as session:
        row = await session.execute(text("SELECT version_num FROM alembic_version"))
        return str(row.scalar_one())


A = 'op.execute("CREATE TABLE a (id int)")'
B = 'op.execute("CREATE TABLE b (id int)")'
BROKEN = 'op.execute("CREATE TABLE c (id int)"); op.execute("SELECT nonsense")'


async def test_all_migrations_run_in_order(
    database: Database, database_url: str, make_package: MakePackage
) -> None:
    await migrate(database_url, make_package(A, B))
    assert await tables(database) == {"a", "b", "alembic_version"}
    assert await revision(database) == "0002"


async def test_running_again_changes_nothing(
    database: Database, database_url: str, make_package: MakePackage
) -> None:
    package = make_package(A)
    await migrate(database_url, package)
    await migrate(database_url, package)
    assert await revision(database) == "0001"


async def test_only_what_is_pending_runs(
    database: Database, database_url: str, make_package: MakePackage
) -> None:
    await migrate(database_url, make_package(A, name="growing"))
    await migrate(database_url, make_package(A, B, name="growing"))
    assert await revision(database) == "0002"


async def test_replicas_may_start_together(
    database: Database, database_url: str, make_package: MakePackage
) -> None:
    package = make_package(A, 'op.execute("SELECT pg_sleep(0.05)")', B)
    await asyncio.gather(*(migrate(database_url, package) for _ in range(4)))
    assert await revision(database) == "0003"


async def test_a_failed_migration_leaves_nothing_behind(
    database: Database, database_url: str, make_package: MakePackage
) -> None:
    with pytest.raises(ProgrammingError):
        await migrate(database_url, make_package(A, BROKEN, name="breaking"))
    assert await tables(database) == set()
    await migrate(database_url, make_package(A, B, name="breaking"))
    assert await revision(database) == "0002"


async def test_a_database_of_a_newer_version_is_refused(
    database: Database, database_url: str, make_package: MakePackage
) -> None:
    await migrate(database_url, make_package(A, B))
    with pytest.raises(FatalError, match="migrated by a newer version"):
        await migrate(database_url, make_package(A))
    assert await revision(database) == "0002"


async def test_it_waits_for_postgresql_to_come_up(
    database: Database,
    database_url: str,
    make_package: MakePackage,
    postgres_server: PostgresServer,
) -> None:
    await asyncio.to_thread(postgres_server.stop)
    migrating = asyncio.create_task(migrate(database_url, make_package(A), pause=0.05))
    await asyncio.to_thread(postgres_server.start)
    await migrating
    assert await revision(database) == "0001"


async def test_it_does_not_wait_for_ever(make_package: MakePackage) -> None:
    with pytest.raises(FatalError, match="did not come up"):
        await migrate("postgresql://a:b@127.0.0.1:1/x", make_package(A), attempts=2, pause=0.01)


async def test_a_refused_password_is_said_at_once(
    database_url: str, make_package: MakePackage
) -> None:
    wrong = database_url.replace(":", ":x", 2).replace(":x//", "://")
    with pytest.raises(FatalError, match="refuses the connection: password authentication"):
        await migrate(wrong, make_package(A))
