"""Connections to PostgreSQL that stay open and carry nothing: noticed by both ends.

The proxy in between confirms every byte and answers the kernels' questions, as one does
that hangs: nothing but a missing answer, or a missing statement, tells of it.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Connection, text
from tests.chaos.links import Link

from streamspace_common.contracts.events import UserSignedIn
from streamspace_common.contracts.identity import system_actor
from streamspace_common.contracts.ids import UserId
from streamspace_common.contracts.problems import Code
from streamspace_common.store import engine, migrate, outbox_relay, silence
from streamspace_common.store.engine import Database
from streamspace_common.store.errors import StoreUnavailableError
from streamspace_common.store.outbox import OutboxRelay, enqueue_event
from streamspace_common.testing.postgres import PostgresServer
from streamspace_common.testing.publisher import MemoryPublisher
from streamspace_common.testing.waiting import eventually

SOON = 1.5
NEVER = 60.0
"""Seconds; what waits as long has no defence."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engine, migrate, outbox_relay):
        monkeypatch.setattr(module, "NO_ANSWER", SOON)


@pytest.fixture
async def link(postgres_server: PostgresServer) -> AsyncIterator[Link]:
    link = Link("test:postgres", postgres_server.port)
    await link.open()
    yield link
    await link.close()


@pytest.fixture
def far_url(database_url: str, link: Link, postgres_server: PostgresServer) -> str:
    return database_url.replace(f":{postgres_server.port}/", f":{link.port}/")


@pytest.fixture
async def far(far_url: str) -> AsyncIterator[Database]:
    database = Database.connect(far_url, application="far")
    yield database
    await database.dispose()


async def ask(database: Database) -> int:
    async with database.transaction() as session:
        answer: int = (await session.execute(text("SELECT 7"))).scalar_one()
        return answer


async def read(database: Database) -> int:
    async with database.reading() as connection:
        answer: int = await connection.fetchval("SELECT 7")
        return answer


def signed_in() -> UserSignedIn:
    return UserSignedIn(
        id=str(uuid4()),
        at=datetime(2026, 1, 1, tzinfo=UTC),
        actor=system_actor("tests"),
        user_id=UserId(f"usr-{1:032x}"),
    )


async def together(database: Database, count: int) -> None:
    """Have so many connections in the pool."""
    met = asyncio.Barrier(count)

    async def one() -> None:
        async with database.transaction() as session:
            await session.execute(text("SELECT 1"))
            await met.wait()

    await asyncio.gather(*(one() for _ in range(count)))


@pytest.mark.parametrize("use", [ask, read])
async def test_an_answer_that_never_comes_is_a_typed_error_and_costs_one_wait(
    far: Database, link: Link, use: object
) -> None:
    assert callable(use)
    await together(far, 8)
    link.silence()
    async with asyncio.timeout(NEVER):
        with pytest.raises(StoreUnavailableError) as refused:
            await use(far)
        assert await use(far) == 7
        # The other seven are as old, and asked no more.
        await together(far, 8)
    assert refused.value.problem.code is Code.SERVICE_UNAVAILABLE


async def test_a_transaction_whose_connection_falls_silent_ends(far: Database, link: Link) -> None:
    async with asyncio.timeout(NEVER):
        with pytest.raises(StoreUnavailableError):
            async with far.transaction() as session:
                await session.execute(text("SELECT 1"))
                link.silence()
        assert await ask(far) == 7


async def test_a_reading_cut_short_on_a_silent_connection_leaves_none_behind(
    far: Database, link: Link
) -> None:
    assert await read(far) == 7
    link.silence()
    async with asyncio.timeout(NEVER):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SOON / 4):
                await read(far)
        assert await read(far) == 7


def test_the_server_ends_a_statement_before_its_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
        assert float(engine._SERVER_SETTINGS[limit]) / 1000 < silence.NO_ANSWER
    assert outbox_relay._SILENT.total_seconds() > silence.NO_ANSWER
    assert outbox_relay._SILENT.total_seconds() / 3 > outbox_relay._SIGN_OF_LIFE


@pytest.mark.parametrize("prepared", [False, True])
async def test_rows_locked_by_a_silent_transaction_are_free_again(
    far_url: str,
    database_url: str,
    link: Link,
    monkeypatch: pytest.MonkeyPatch,
    prepared: bool,
) -> None:
    with monkeypatch.context() as patient:
        patient.setattr(engine, "NO_ANSWER", NEVER)
        near = Database.connect(database_url)
    async with near.transaction() as session:
        await session.execute(text("CREATE TABLE notes (id int)"))
        await session.execute(text("INSERT INTO notes VALUES (1)"))
    brief = {"idle_in_transaction_session_timeout": "600000" if prepared else "500"}
    monkeypatch.setattr(engine, "_SERVER_SETTINGS", {**engine._SERVER_SETTINGS, **brief})
    monkeypatch.setattr(silence, "TRANSACTION", 1000)
    far = Database.connect(far_url)
    locked = asyncio.Event()

    async def hold() -> None:
        async with far.transaction() as session:
            await session.execute(text("UPDATE notes SET id = 2"))
            if prepared:
                pooled = await (await session.connection()).get_raw_connection()
                assert pooled.driver_connection is not None
                await pooled.driver_connection.prepare("SELECT 1")
            link.silence()
            locked.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    try:
        async with asyncio.timeout(NEVER):
            await locked.wait()
            async with near.transaction() as session:
                await session.execute(text("UPDATE notes SET id = 3"))
    finally:
        holder.cancel()
        await asyncio.wait({holder})
        await far.dispose()
        await near.dispose()


async def test_both_kernels_ask_whether_the_other_end_is_there(far: Database) -> None:
    async with far.reading() as connection:
        end = connection._transport.get_extra_info("socket")
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 25_000
        assert await connection.fetchval("SHOW tcp_keepalives_idle") == "10"
        assert await connection.fetchval("SHOW tcp_user_timeout") == "25000"


async def test_a_relay_notices_that_its_connection_is_silent_and_publishes_again(
    database: Database, far: Database, link: Link, migrated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_relay, "_SILENT", timedelta(seconds=1))
    relay = OutboxRelay(far, MemoryPublisher())
    task = asyncio.create_task(relay.run())
    await eventually(lambda: relay.active)
    link.silence()
    await eventually(lambda: not relay.active, timeout=NEVER)
    await eventually(lambda: relay.active, timeout=NEVER)
    task.cancel()
    await asyncio.wait({task})


async def test_the_lock_of_a_relay_that_nobody_hears_of_is_taken_over(
    database: Database, far: Database, link: Link, migrated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_relay, "_SILENT", timedelta(seconds=1))
    # The vanished one knows nothing of it: as if its machine was gone.
    monkeypatch.setattr(outbox_relay, "NO_ANSWER", 10 * NEVER)
    vanished, other = OutboxRelay(far, MemoryPublisher()), OutboxRelay(database, MemoryPublisher())
    tasks = [asyncio.create_task(vanished.run())]
    await eventually(lambda: vanished.active)
    tasks.append(asyncio.create_task(other.run()))
    link.silence()
    await eventually(lambda: other.active, timeout=NEVER)
    assert vanished.active
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_relay_whose_publishing_takes_long_keeps_its_lock(
    database: Database, migrated: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_relay, "NO_ANSWER", NEVER)
    monkeypatch.setattr(outbox_relay, "_SILENT", timedelta(seconds=0.5))
    monkeypatch.setattr(outbox_relay, "_SIGN_OF_LIFE", 0.05)
    monkeypatch.setattr(outbox_relay, "_POLL", 0.05)
    monkeypatch.setattr(outbox_relay, "_STANDBY", 0.05)
    bus = MemoryPublisher()
    bus.delay = 2.0
    relay, other = OutboxRelay(database, bus), OutboxRelay(database, MemoryPublisher())
    tasks = [asyncio.create_task(relay.run())]
    await eventually(lambda: relay.active)
    tasks.append(asyncio.create_task(other.run()))
    async with database.transaction() as session:
        await enqueue_event(session, signed_in(), source="tests")
    await eventually(lambda: bus.messages)
    assert relay.active
    assert not other.active
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_start_on_a_connection_that_falls_silent_goes_on_with_another(
    far_url: str,
    link: Link,
    migrated: None,
    migrations_package: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look, looks = migrate._is_newest, 0

    def silent_at_first(connection: Connection, package: str) -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            link.silence()
        return look(connection, package)

    monkeypatch.setattr(migrate, "_is_newest", silent_at_first)
    async with asyncio.timeout(NEVER):
        await migrate.migrate(far_url, migrations_package, pause=0.01)
    assert looks == 2


@pytest.fixture
def migrated(database_url: str) -> None:
    """The database has the sample's tables, made by `migrations_package` of this folder."""
