"""A message takes effect once, however often it is delivered."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from streamspace_common.store.engine import Database
from streamspace_common.store.inbox import first_time, prune


async def receive(database: Database, consumer: str, message: str) -> bool:
    async with database.transaction() as session:
        return await first_time(session, consumer, message)


async def test_only_the_first_delivery_is_new(database: Database) -> None:
    assert await receive(database, "a", "m1")
    assert not await receive(database, "a", "m1")
    assert await receive(database, "a", "m2")


async def test_each_consumer_has_its_own_memory(database: Database) -> None:
    assert await receive(database, "a", "m1")
    assert await receive(database, "b", "m1")


async def test_an_effect_that_was_rolled_back_may_be_tried_again(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as session:
            assert await first_time(session, "a", "m1")
            _ = 1 / 0
    assert await receive(database, "a", "m1")


async def test_of_two_at_once_one_is_new(database: Database) -> None:
    outcomes = await asyncio.gather(*(receive(database, "a", "m1") for _ in range(5)))
    assert sorted(outcomes) == [False, False, False, False, True]


async def test_old_messages_are_forgotten(database: Database) -> None:
    await receive(database, "a", "old")
    async with database.transaction() as session:
        await session.execute(text("UPDATE inbox SET received_at = now() - interval '31 days'"))
    await receive(database, "a", "new")
    async with database.transaction() as session:
        assert await prune(session, timedelta(days=30)) == 1
    assert not await receive(database, "a", "new")
    assert await receive(database, "a", "old")
