"""Batches form by themselves, and one bad item spoils only its own outcome."""

import asyncio

import pytest

from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_session.batching import Batches


class Work:
    """Notes its batches; holds the first until it is told to go on."""

    def __init__(self):
        self.batches = []
        self.go = asyncio.Event()

    async def __call__(self, items):
        self.batches.append(list(items))
        await self.go.wait()
        if "bad" in items:
            raise ValueError("bad item")
        if "down" in items:
            raise ProblemError.of(Code.SERVICE_UNAVAILABLE, "away")


async def submit_all(batches, items):
    tasks = [asyncio.create_task(batches.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def test_one_item_is_worked_on_at_once_and_a_flood_together():
    work = Work()
    batches = Batches(work, limit=3)
    first = await submit_all(batches, ["a"])
    await asyncio.sleep(0)
    rest = await submit_all(batches, ["b", "c", "d", "e"])
    work.go.set()
    await asyncio.gather(*first, *rest)
    assert work.batches == [["a"], ["b", "c", "d"], ["e"]]


async def test_a_bad_item_fails_alone():
    work = Work()
    work.go.set()
    batches = Batches(work, limit=10)
    tasks = await submit_all(batches, ["a", "bad", "c"])
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, type(None)]


async def test_an_outage_is_everybodys_and_is_not_tried_item_by_item():
    work = Work()
    work.go.set()
    batches = Batches(work, limit=10)
    tasks = await submit_all(batches, ["a", "down", "c"])
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, ProblemError) for outcome in outcomes)
    assert len(work.batches) == 1


async def test_who_gave_up_waiting_is_not_worked_for():
    work = Work()
    batches = Batches(work, limit=10)
    first = await submit_all(batches, ["a"])
    await asyncio.sleep(0)
    (gone,) = await submit_all(batches, ["b"])
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    work.go.set()
    await asyncio.gather(*first)
    await batches.drain()
    assert work.batches == [["a"]]
