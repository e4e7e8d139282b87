"""The relay goes on after whatever may happen to its connection."""

import asyncio

import asyncpg
import pytest

from streamspace_common.store.engine import Database
from streamspace_common.store.outbox import OutboxRelay
from streamspace_common.testing.publisher import MemoryPublisher


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.PostgresError.new({"C": "57P01", "M": "terminating connection", "S": "FATAL"}),
        asyncpg.InternalClientError(
            "cannot switch to state 12; another operation (2) is in progress"
        ),
    ],
    ids=repr,
)
async def test_a_lost_connection_is_followed_by_another_one(error):
    relay = OutboxRelay(Database.connect("postgresql://u:p@127.0.0.1:1/d"), MemoryPublisher())
    again = asyncio.Event()

    async def lose():
        relay._serve_one_connection = serve
        raise error

    async def serve():
        again.set()
        await asyncio.Event().wait()

    relay._serve_one_connection = lose
    running = asyncio.create_task(relay.run())
    await asyncio.wait({running, asyncio.create_task(again.wait())}, return_when="FIRST_COMPLETED")
    assert again.is_set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
