"""The event feed over a real stream: order, resume, joins, slow readers."""

import asyncio
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import pytest
import structlog

from streamspace_common.bus import Bus, provision
from streamspace_common.contracts.events import UserSignedIn
from streamspace_common.contracts.identity import Actor
from streamspace_common.testing.waiting import eventually
from streamspace_gateway import live
from streamspace_gateway.ports import FeedOverflowError


def happened(number):
    return UserSignedIn(
        id=f"event-{number}",
        at=datetime.now(UTC),
        actor=Actor(id="system:test"),
        user_id=f"usr-{number:032x}",
    )


async def publish(bus, *numbers):
    for number in numbers:
        await bus.publish_event(happened(number), source="test")


@asynccontextmanager
async def running(bus, memory=1000):
    feed = live.EventFeed(bus, memory=memory)
    task = asyncio.create_task(feed.run())
    try:
        await eventually(lambda: feed.ready)
        yield feed
    finally:
        feed.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def collect(feed, after, count):
    seen = []
    async with (
        asyncio.timeout(20),
        aclosing(feed.follow(lambda event: True, after=after)) as events,
    ):
        async for event in events:
            if event is not None:
                seen.append(event.sequence)
            if len(seen) == count:
                return seen
    return seen


async def test_the_feed_waits_until_the_session_service_has_made_the_stream(
    nats_server, monkeypatch
):
    """Services of a deployment start in any order."""
    monkeypatch.setattr(live, "_PAUSE", 0.01)
    bus = await Bus.connect(nats_server.url, name="test")
    feed = live.EventFeed(bus, memory=10)
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(feed.run())
        await eventually(lambda: any("waiting" in line["event"] for line in logs))
        assert not feed.ready
        await provision(bus)
        await eventually(lambda: feed.ready)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bus.close()


async def test_followers_see_what_happens_in_order(bus):
    async with running(bus) as feed:
        reading = asyncio.create_task(collect(feed, 0, 5))
        await publish(bus, *range(1, 6))
        assert await reading == [1, 2, 3, 4, 5]


async def test_a_resume_from_before_this_gateway_reads_the_stream(bus):
    await publish(bus, *range(1, 8))
    async with running(bus) as feed:
        assert feed.position == 7
        reading = asyncio.create_task(collect(feed, 2, 7))
        await publish(bus, 8, 9)
        assert await reading == [3, 4, 5, 6, 7, 8, 9]


async def test_a_resume_from_memory_needs_no_second_reader(bus):
    async with running(bus) as feed:
        await publish(bus, *range(1, 8))
        await eventually(lambda: feed.position == 7)
        assert await collect(feed, 3, 4) == [4, 5, 6, 7]


async def test_a_resume_from_beyond_memory_has_no_gap_at_the_join(bus):
    async with running(bus, memory=3) as feed:
        await publish(bus, *range(1, 11))
        await eventually(lambda: feed.position == 10)
        reading = asyncio.create_task(collect(feed, 1, 14))
        await publish(bus, *range(11, 16))
        assert await reading == list(range(2, 16))


async def test_events_survive_a_restart_of_the_server(bus, nats_server):
    async with running(bus) as feed:
        reading = asyncio.create_task(collect(feed, 0, 4))
        await publish(bus, 1, 2)
        await asyncio.to_thread(nats_server.restart)
        await publish(bus, 3, 4)
        assert await reading == [1, 2, 3, 4]


async def test_a_reader_that_is_too_slow_is_told_and_can_resume(bus, monkeypatch):
    monkeypatch.setattr(live, "QUEUE_LENGTH", 3)
    async with running(bus) as feed:
        async with aclosing(feed.follow(lambda event: True, after=0)) as events:
            reading = asyncio.create_task(anext(events))
            await publish(bus, 1)
            assert (await reading).sequence == 1
            await publish(bus, *range(2, 10))
            await eventually(lambda: feed.position == 9)
            with pytest.raises(FeedOverflowError):
                async for _ in events:
                    pass
        assert await collect(feed, 1, 8) == list(range(2, 10))


async def test_the_drain_ends_followers(bus):
    async with running(bus) as feed:
        reading = asyncio.create_task(collect(feed, 0, 1))
        await asyncio.sleep(0)
        feed.close()
        assert await reading == []
