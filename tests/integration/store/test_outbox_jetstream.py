"""The relay with a real nats-server: what JetStream forgets, the outbox remembers."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from streamspace_common.bus import Bus
from streamspace_common.contracts.commands import COMMAND, StopSession
from streamspace_common.contracts.events import UserSignedIn
from streamspace_common.contracts.identity import system_actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId, UserId
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.store.engine import Database
from streamspace_common.store.outbox import OutboxRelay, enqueue_command, enqueue_event
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.postgres import PostgresServer
from streamspace_common.testing.waiting import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACTOR = system_actor("tests")
CLUSTER = ClusterId("c1")
SESSION = SessionId("s1")


def stop(generation: int, attempt: int = 1) -> StopSession:
    return StopSession(
        command_id=CommandId(f"cmd-{generation:08x}"),
        attempt=attempt,
        session_id=SESSION,
        cluster_id=CLUSTER,
        generation=generation,
        issued_at=NOW,
        deadline=NOW + timedelta(minutes=5),
        actor=ACTOR,
    )


def signed_in(user: int) -> UserSignedIn:
    return UserSignedIn(id=str(uuid4()), at=NOW, actor=ACTOR, user_id=UserId(f"usr-{user:032x}"))


async def settled(database: Database) -> None:
    async def empty() -> bool:
        async with database.transaction() as session:
            rows = await session.execute(text("SELECT count(*) FROM outbox"))
            return bool(rows.scalar_one() == 0)

    await eventually(empty, timeout=30, message="the outbox is never empty")


async def send(database: Database, *messages: StopSession | UserSignedIn) -> None:
    async with database.transaction() as session:
        for message in messages:
            if isinstance(message, StopSession):
                await enqueue_command(session, message)
            else:
                await enqueue_event(session, message, source="tests")


async def newest(bus: Bus) -> tuple[int, int]:
    held = await bus.newest_command(CLUSTER, SESSION)
    assert held is not None
    command = COMMAND.validate_json(held.payload)
    return command.generation, command.attempt


@pytest.fixture
async def relay(database: Database, bus: Bus) -> AsyncIterator[OutboxRelay]:
    relay = OutboxRelay(database, bus)
    task = asyncio.create_task(relay.run())
    yield relay
    task.cancel()
    await asyncio.wait({task})


async def test_commands_replace_each_other_in_the_stream(
    database: Database, bus: Bus, relay: OutboxRelay
) -> None:
    for generation in (1, 2, 3):
        await send(database, stop(generation))
        await settled(database)
        assert await newest(bus) == (generation, 1)


async def test_a_stale_repetition_is_refused_after_the_server_was_killed(
    database: Database, bus: Bus, relay: OutboxRelay, nats_server: NatsServer
) -> None:
    """The server rebuilds known message ids from stored messages: the replaced one is forgotten."""
    await send(database, stop(1))
    await settled(database)
    await send(database, stop(2))
    await settled(database)
    await asyncio.to_thread(nats_server.restart, kill=True)
    await send(database, stop(1))
    await settled(database)
    assert await newest(bus) == (2, 1)


async def test_a_reissue_replaces_the_same_command(
    database: Database, bus: Bus, relay: OutboxRelay
) -> None:
    await send(database, stop(1))
    await settled(database)
    await send(database, stop(1, attempt=2))
    await settled(database)
    assert await newest(bus) == (1, 2)


async def test_a_purged_command_does_not_hold_back_the_next(
    database: Database, bus: Bus, relay: OutboxRelay
) -> None:
    await send(database, stop(1))
    await settled(database)
    await bus.purge_commands(CLUSTER, SESSION)
    await send(database, stop(2))
    await settled(database)
    assert await newest(bus) == (2, 1)


async def test_kills_of_both_servers_lose_nothing_and_double_nothing(
    database: Database,
    bus: Bus,
    relay: OutboxRelay,
    nats_server: NatsServer,
    postgres_server: PostgresServer,
) -> None:
    accepted = [signed_in(n) for n in range(60)]
    for turn in range(3):
        for event in accepted[turn * 20 : turn * 20 + 10]:
            await send(database, event)
        await asyncio.to_thread(nats_server.kill)
        for event in accepted[turn * 20 + 10 : turn * 20 + 20]:
            await send(database, event)
        await asyncio.to_thread(postgres_server.kill)
        await asyncio.to_thread(postgres_server.start)
        await asyncio.to_thread(nats_server.start)
    await settled(database)
    assert await bus.last_sequence(EVENTS.name) == len(accepted)


async def test_a_committed_event_is_in_the_stream_soon(
    database: Database, bus: Bus, relay: OutboxRelay
) -> None:
    """Prints what it takes; the benchmark judges it."""
    await eventually(lambda: relay.active)
    took = []
    for n in range(200):
        began = time.perf_counter()
        await send(database, signed_in(n))
        while await bus.last_sequence(EVENTS.name) <= n:
            pass
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    print(f"commit to stored: p50 {took[100]:.1f} ms, p99 {took[198]:.1f} ms")
