"""A consumer that cannot pull waits; it does not turn in circles."""

import asyncio

from streamspace_common.bus import PullLoop
from streamspace_common.bus.pulling import Puller
from streamspace_common.contracts.streams import SESSION_EVENTS
from streamspace_common.testing.waiting import eventually


async def test_while_the_server_is_away_nobody_asks_again_and_again(nats_server, bus, monkeypatch):
    looks = 0
    request = Puller.request

    async def counted(self, room):
        nonlocal looks
        looks += 1
        await request(self, room)

    async def handle(delivery):
        raise AssertionError("nothing is published here")

    monkeypatch.setattr(Puller, "request", counted)
    # A short patience, so that the silence is older than it while the server is away.
    monkeypatch.setattr("streamspace_common.bus.pulling._SILENCE", 0.3)
    loop = PullLoop(bus, SESSION_EVENTS, handle, key=lambda delivery: "", concurrency=4)
    running = asyncio.create_task(loop.run())
    try:
        await eventually(lambda: looks > 0)
        nats_server.kill()
        await eventually(lambda: not bus.connected)
        await asyncio.sleep(0.4)
        looks = 0
        await asyncio.sleep(1.0)
        assert looks <= 5
        nats_server.start()
        await eventually(lambda: bus.connected, timeout=20)
    finally:
        await loop.drain(0)
        await running
