"""Transactions at the edge, and what becomes of them when PostgreSQL goes away."""

import asyncio
from datetime import UTC

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from streamspace_common.contracts.problems import Code
from streamspace_common.store.engine import COMMIT_HOOK, Database
from streamspace_common.store.errors import StoreUnavailableError
from streamspace_common.testing.postgres import PostgresServer


@pytest.fixture
async def notes(database: Database) -> Database:
    async with database.transaction() as session:
        await session.execute(text("CREATE TABLE notes (id int PRIMARY KEY)"))
    return database


async def write(database: Database, id_: int) -> None:
    async with database.transaction() as session:
        await session.execute(text("INSERT INTO notes VALUES (:id)"), {"id": id_})


async def read(database: Database) -> list[int]:
    async with database.transaction() as session:
        rows = await session.execute(text("SELECT id FROM notes ORDER BY id"))
        return [row.id for row in rows]


async def test_a_block_that_ends_is_kept_and_one_that_raises_is_not(notes: Database) -> None:
    await write(notes, 1)
    with pytest.raises(ZeroDivisionError):
        async with notes.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES (2)"))
            _ = 1 / 0
    assert await read(notes) == [1]


async def test_a_cancelled_block_is_not_kept_and_gives_its_connection_back(
    notes: Database,
) -> None:
    entered = asyncio.Event()

    async def hang(id_: int) -> None:
        async with notes.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES (:id)"), {"id": id_})
            entered.set()
            await asyncio.Event().wait()

    for id_ in range(20):  # more than the pool has connections
        entered.clear()
        task = asyncio.create_task(hang(id_))
        await entered.wait()
        task.cancel()
        await asyncio.wait({task})
    assert await read(notes) == []


async def test_statements_of_a_reading_are_transactions_of_their_own(notes: Database) -> None:
    await write(notes, 1)
    async with notes.reading() as connection:
        seen = [await connection.fetchval("SELECT count(*) FROM notes")]
        await write(notes, 2)
        seen.append(await connection.fetchval("SELECT count(*) FROM notes"))
    assert seen == [1, 2]


async def test_a_reading_that_is_cut_short_spoils_no_connection_for_others(
    notes: Database,
) -> None:
    began = asyncio.Event()

    async def sleep() -> None:
        async with notes.reading() as connection:
            began.set()
            await connection.fetch("SELECT pg_sleep(60)")

    for _ in range(20):  # more than the pool has connections
        began.clear()
        task = asyncio.create_task(sleep())
        await began.wait()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        async with notes.reading() as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_reading_is_refused_with_a_typed_error_while_postgresql_is_down(
    notes: Database, postgres_server: PostgresServer
) -> None:
    await asyncio.to_thread(postgres_server.kill)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            async with notes.reading() as connection:
                await connection.fetchval("SELECT 1")
    await asyncio.to_thread(postgres_server.start)
    async with notes.reading() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_listeners_hear_of_commits_that_asked_for_it_only(notes: Database) -> None:
    heard: list[str] = []
    notes.on_commit(lambda: heard.append("commit"))
    await write(notes, 1)
    assert heard == []
    with pytest.raises(ZeroDivisionError):
        async with notes.transaction() as session:
            session.info[COMMIT_HOOK] = True
            _ = 1 / 0
    assert heard == []
    async with notes.transaction() as session:
        session.info[COMMIT_HOOK] = True
    assert heard == ["commit"]


async def test_an_error_of_the_statement_stays_what_it_is(notes: Database) -> None:
    await write(notes, 1)
    with pytest.raises(IntegrityError):
        await write(notes, 1)


async def test_the_clock_is_the_databases_and_in_utc(notes: Database) -> None:
    async with notes.transaction() as session:
        first = await notes.now(session)
        second = await notes.now(session)
    assert first.tzinfo is UTC
    assert second > first


async def test_after_a_restart_the_next_transaction_works(
    notes: Database, postgres_server: PostgresServer
) -> None:
    await asyncio.gather(*(write(notes, n) for n in range(5)))
    await asyncio.to_thread(postgres_server.restart)
    await write(notes, 5)
    assert await read(notes) == [0, 1, 2, 3, 4, 5]


async def test_while_postgresql_is_down_it_is_a_typed_error(
    notes: Database, postgres_server: PostgresServer
) -> None:
    await write(notes, 1)
    await asyncio.to_thread(postgres_server.kill)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError) as refused:
            await write(notes, 2)
    assert refused.value.problem.code is Code.SERVICE_UNAVAILABLE
    assert refused.value.problem.retry_after == 2
    assert not await notes.ping()
    await asyncio.to_thread(postgres_server.start)
    await write(notes, 3)
    assert await notes.ping()
    assert await read(notes) == [1, 3]


async def test_a_connection_lost_within_a_transaction_is_a_typed_error(
    notes: Database, postgres_server: PostgresServer
) -> None:
    with pytest.raises(StoreUnavailableError):
        async with notes.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES (1)"))
            await asyncio.to_thread(postgres_server.kill)
            await session.execute(text("INSERT INTO notes VALUES (2)"))
    await asyncio.to_thread(postgres_server.start)
    assert await read(notes) == []


async def test_a_connection_lost_before_the_commit_is_a_typed_error(
    notes: Database, postgres_server: PostgresServer
) -> None:
    with pytest.raises(StoreUnavailableError):
        async with notes.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES (1)"))
            await asyncio.to_thread(postgres_server.kill)
    await asyncio.to_thread(postgres_server.start)
    assert await read(notes) == []


async def test_a_terminated_backend_is_a_typed_error(notes: Database) -> None:
    with pytest.raises(StoreUnavailableError):
        async with notes.transaction() as session:
            await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    await write(notes, 1)


async def test_a_statement_that_takes_too_long_is_a_typed_error(notes: Database) -> None:
    with pytest.raises(StoreUnavailableError):
        async with notes.transaction() as session:
            await session.execute(text("SET LOCAL statement_timeout = '20ms'"))
            await session.execute(text("SELECT pg_sleep(30)"))


async def test_a_database_that_is_nowhere_is_a_typed_error() -> None:
    nowhere = Database.connect("postgresql://a:b@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailableError):
        async with nowhere.transaction():
            pass
    await nowhere.dispose()
