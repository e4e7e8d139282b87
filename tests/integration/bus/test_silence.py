"""A connection to NATS that stays open and carries nothing: given up, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.chaos.links import Link

from streamspace_common.bus import Bus, BusError, PullLoop, ensure_durable
from streamspace_common.contracts.streams import SESSION_EVENTS
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually

LONG = 60.0


@pytest.fixture
async def link(nats_server: NatsServer) -> AsyncIterator[Link]:
    link = Link("test:nats", nats_server.port)
    await link.open()
    yield link
    await link.close()


@pytest.fixture
async def far(link: Link) -> AsyncIterator[Bus]:
    bus = await Bus.connect(f"nats://127.0.0.1:{link.port}", name="far", ping_interval=1)
    yield bus
    await bus.close()


async def test_a_silent_connection_is_given_up_and_another_one_made(far: Bus, link: Link) -> None:
    again = asyncio.Event()
    far.link.on_reconnected(again.set)
    link.silence()
    with pytest.raises(BusError):
        # Whoever asks meanwhile is told, and does not wait for the new connection.
        await far.link.request("$SYS.REQ.USER.INFO", timeout=0.2)
    async with asyncio.timeout(LONG):
        await again.wait()
    assert (await far.link.request("$SYS.REQ.USER.INFO")).data


async def test_a_connection_that_is_silent_before_it_is_made_is_tried_again(link: Link) -> None:
    connecting = asyncio.create_task(
        Bus.connect(f"nats://127.0.0.1:{link.port}", name="far", ping_interval=1)
    )
    await eventually(lambda: link._pairs)
    link.silence()
    async with asyncio.timeout(LONG):
        bus = await connecting
    assert bus.connected
    await bus.close()


async def test_what_was_sent_into_silence_comes_again(far: Bus, bus: Bus, link: Link) -> None:
    heard: list[bytes] = []

    async def handle(delivery: object) -> None:
        heard.append(delivery.payload)  # type: ignore[attr-defined]

    durable = replace(SESSION_EVENTS, ack_wait=timedelta(seconds=1))
    await ensure_durable(bus, durable)
    loop = PullLoop(far, durable, handle, key=lambda _: "", concurrency=4)
    running = asyncio.create_task(loop.run())
    subject = "evt.core.session.s1.activity"
    await bus.publish(subject, b"before", {})
    await eventually(lambda: heard == [b"before"])
    link.silence()
    await bus.publish(subject, b"into silence", {})
    await eventually(lambda: heard == [b"before", b"into silence"], timeout=LONG)
    await loop.drain(0)
    await running
