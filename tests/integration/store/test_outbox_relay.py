"""The relay against a real PostgreSQL and a stream in memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from streamspace_common.contracts.commands import StopSession
from streamspace_common.contracts.events import UserSignedIn
from streamspace_common.contracts.identity import system_actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId, UserId
from streamspace_common.store.engine import Database
from streamspace_common.store.outbox import (
    OutboxRelay,
    SupersededCommand,
    enqueue_command,
    enqueue_event,
)
from streamspace_common.testing.publisher import MemoryPublisher
from streamspace_common.testing.waiting import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACTOR = system_actor("tests")


def signed_in(user: int = 1) -> UserSignedIn:
    return UserSignedIn(id=str(uuid4()), at=NOW, actor=ACTOR, user_id=UserId(f"usr-{user:032x}"))


def stop(generation: int, *, session: str = "s1", attempt: int = 1) -> StopSession:
    return StopSession(
        command_id=CommandId(f"cmd-{generation:08x}"),
        attempt=attempt,
        session_id=SessionId(session),
        cluster_id=ClusterId("c1"),
        generation=generation,
        issued_at=NOW,
        deadline=NOW + timedelta(minutes=5),
        actor=ACTOR,
    )


async def send(database: Database, *messages: UserSignedIn | StopSession) -> None:
    async with database.transaction() as session:
        for message in messages:
            if isinstance(message, StopSession):
                await enqueue_command(session, message)
            else:
                await enqueue_event(session, message, source="tests")


async def waiting(database: Database) -> int:
    async with database.transaction() as session:
        count: int = (await session.execute(text("SELECT count(*) FROM outbox"))).scalar_one()
        return count


async def known_sequences(database: Database) -> dict[str, int]:
    async with database.transaction() as session:
        rows = await session.execute(text("SELECT subject, sequence FROM command_sequences"))
        return {row.subject: row.sequence for row in rows}


async def settled(database: Database) -> None:
    async def empty() -> bool:
        return await waiting(database) == 0

    await eventually(empty, message="the outbox is never empty")


@asynccontextmanager
async def running(relay: OutboxRelay) -> AsyncIterator[OutboxRelay]:
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def bus() -> MemoryPublisher:
    return MemoryPublisher()


async def test_what_is_committed_is_published_with_its_headers(
    database: Database, bus: MemoryPublisher
) -> None:
    event = signed_in()
    async with running(OutboxRelay(database, bus)):
        await send(database, event)
        await settled(database)
    [message] = bus.messages
    assert message.subject == event.subject
    assert UserSignedIn.from_json(message.payload) == event
    assert message.headers["Nats-Msg-Id"] == message.headers["ce-id"] == event.id
    assert message.headers["ce-source"] == "tests"


async def test_what_is_rolled_back_is_never_published(
    database: Database, bus: MemoryPublisher
) -> None:
    async with running(OutboxRelay(database, bus)):
        with pytest.raises(ZeroDivisionError):
            async with database.transaction() as session:
                await enqueue_event(session, signed_in(), source="tests")
                await session.flush()
                _ = 1 / 0
        after = signed_in()
        await send(database, after)
        await settled(database)
    assert bus.ids == [after.id]


async def test_rows_of_an_earlier_life_are_published_at_start(
    database: Database, bus: MemoryPublisher
) -> None:
    events = [signed_in(n) for n in range(1200)]
    await send(database, *events)
    async with running(OutboxRelay(database, bus)):
        await settled(database)
    assert sorted(bus.ids) == sorted(event.id for event in events)


async def test_a_commit_by_another_process_wakes_the_relay(
    database: Database, database_url: str, bus: MemoryPublisher
) -> None:
    elsewhere = Database.connect(database_url)
    async with running(OutboxRelay(database, bus)) as relay:
        await eventually(lambda: relay.active)
        await send(elsewhere, signed_in())
        await settled(database)
    await elsewhere.dispose()
    assert len(bus.messages) == 1


async def test_events_about_one_thing_keep_their_order(
    database: Database, bus: MemoryPublisher
) -> None:
    bus.delay = 0.0005
    events = [signed_in(n % 3) for n in range(60)]
    async with running(OutboxRelay(database, bus)):
        for batch in range(0, 60, 20):
            await send(database, *events[batch : batch + 20])
        await settled(database)
    for user in range(3):
        subject = signed_in(user).subject
        sent = [m.headers["ce-id"] for m in bus.messages if m.subject == subject]
        assert sent == [event.id for event in events if event.subject == subject]


async def test_only_the_newest_command_of_a_session_is_sent(
    database: Database, bus: MemoryPublisher
) -> None:
    told: list[SupersededCommand] = []

    async def superseded(commands: Sequence[SupersededCommand]) -> None:
        told.extend(commands)

    await send(database, stop(1), stop(2, session="s2"), stop(2), stop(3))
    async with running(OutboxRelay(database, bus, on_commands_superseded=superseded)):
        await settled(database)
    assert sorted(bus.ids) == ["cmd-00000002.1", "cmd-00000003.1"]
    assert [(c.message_id, c.session_id, c.by_generation) for c in told] == [
        ("cmd-00000001.1", "s1", 3),
        ("cmd-00000002.1", "s1", 3),
    ]


async def test_commands_follow_each_other_with_the_expected_sequence(
    database: Database, bus: MemoryPublisher
) -> None:
    async with running(OutboxRelay(database, bus)):
        for generation in (1, 2, 3):
            await send(database, stop(generation))
            await settled(database)
    assert len(bus.attempts) == len(bus.messages) == 3, "no comparison was needed"
    assert await known_sequences(database) == {"cmd.c1.s1": 3}


async def test_a_late_repetition_never_replaces_a_newer_command(
    database: Database, bus: MemoryPublisher
) -> None:
    """Published, then killed before deleting; the stream forgot the message ids meanwhile."""
    async with running(OutboxRelay(database, bus)):
        await send(database, stop(1))
        await settled(database)
        await send(database, stop(2))
        await settled(database)
        bus.forget_ids()
        async with database.transaction() as session:
            await session.execute(text("DELETE FROM command_sequences"))
        await send(database, stop(1))
        await settled(database)
    assert bus.ids == ["cmd-00000001.1", "cmd-00000002.1"]
    assert await known_sequences(database) == {"cmd.c1.s1": 2}


async def test_a_command_older_than_the_last_stored_one_is_not_even_tried(
    database: Database, bus: MemoryPublisher
) -> None:
    told: list[SupersededCommand] = []

    async def superseded(commands: Sequence[SupersededCommand]) -> None:
        told.extend(commands)

    async with running(OutboxRelay(database, bus, on_commands_superseded=superseded)):
        await send(database, stop(2))
        await settled(database)
        bus.forget_ids()
        await send(database, stop(1))
        await send(database, stop(2))
        await settled(database)
    assert bus.attempts == ["cmd-00000002.1"]
    assert [(c.generation, c.by_generation) for c in told] == [(1, 2)]


async def test_a_command_already_in_the_stream_is_not_stored_twice(
    database: Database, bus: MemoryPublisher
) -> None:
    bus.confirm = False
    async with running(OutboxRelay(database, bus)):
        await send(database, stop(1))
        await eventually(lambda: len(bus.messages) == 1)
        bus.forget_ids()
        bus.confirm = True
        await settled(database)
    assert bus.ids == ["cmd-00000001.1"]
    assert await known_sequences(database) == {"cmd.c1.s1": 1}


async def test_a_newer_attempt_replaces_what_the_stream_holds(
    database: Database, bus: MemoryPublisher
) -> None:
    async with running(OutboxRelay(database, bus)):
        await send(database, stop(1))
        await settled(database)
        async with database.transaction() as session:
            await session.execute(text("UPDATE command_sequences SET sequence = 77"))
        await send(database, stop(1, attempt=2))
        await settled(database)
    assert bus.ids == ["cmd-00000001.1", "cmd-00000001.2"]


async def test_a_lost_stream_does_not_hold_commands_back(
    database: Database, bus: MemoryPublisher
) -> None:
    async with running(OutboxRelay(database, bus)):
        await send(database, stop(1))
        await settled(database)
        bus.messages.clear()
        await send(database, stop(2))
        await settled(database)
    assert bus.ids == ["cmd-00000002.1"]


async def test_while_the_bus_is_away_everything_waits_and_nothing_is_lost(
    database: Database, bus: MemoryPublisher
) -> None:
    bus.connected = False
    events = [signed_in(n) for n in range(5)]
    async with running(OutboxRelay(database, bus)):
        await send(database, *events)
        await eventually(lambda: len(bus.attempts) >= 10)
        assert await waiting(database) == 5
        bus.connected = True
        await settled(database)
    assert sorted(bus.ids) == sorted(event.id for event in events)


async def test_a_second_relay_stands_by_and_takes_over(
    database: Database, bus: MemoryPublisher
) -> None:
    first, second = OutboxRelay(database, bus), OutboxRelay(database, bus)
    async with running(second):
        await eventually(lambda: second.active)
        async with running(first):
            await send(database, signed_in())
            await settled(database)
            assert not first.active
    async with running(first):
        await send(database, signed_in())
        await settled(database)
        assert first.active
        assert not second.active
    assert len(bus.messages) == 2


async def test_the_relay_goes_on_after_its_connection_was_cut(
    database: Database, bus: MemoryPublisher
) -> None:
    async with running(OutboxRelay(database, bus)) as relay:
        await eventually(lambda: relay.active)
        async with database.transaction() as session:
            await session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'outbox-relay' AND datname = current_database()"
                )
            )
        await send(database, signed_in())
        await settled(database)
    assert len(bus.messages) == 1
