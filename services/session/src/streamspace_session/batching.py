"""Groups what arrives side by side into batches.

While a batch is being worked on, what comes in gathers and becomes the next one: a
single item is worked on at once, a flood in few large batches. Where nobody waits for the
outcome, the next batch after one of many can be given a moment to gather: a transaction
costs much the same with one item and with fifty. Whoever submits an item gets the
outcome of its batch. When a batch fails, its items are tried one by one, so that one
that cannot work does not spoil the others.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from streamspace_common.contracts.problems import ProblemError

Item = TypeVar("Item")


class Batches(Generic[Item]):
    """One batch at a time.

    Args:
        work: acts on a batch, wholly or not at all.
        limit: most items of a batch.
        many: items of a batch after which the next one is given time to gather.
        gather: that time, in seconds.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[None]],
        *,
        limit: int,
        many: int = 1,
        gather: float = 0.0,
    ) -> None:
        self._work = work
        self._limit = limit
        self._many = many
        self._gather = gather
        self._waiting: deque[tuple[Item, asyncio.Future[None]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> None:
        """Have the item worked on with others; returns or raises as its batch does."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._worker is None:
            # Not in the trace of whoever happens to come first: a batch belongs to several.
            self._worker = asyncio.create_task(self._run(), name="batches", context=Context())
        await done

    async def drain(self) -> None:
        """Wait until nothing is being worked on."""
        while self._worker is not None:
            await asyncio.wait({self._worker})

    async def _run(self) -> None:
        try:
            while self._waiting:
                size = min(len(self._waiting), self._limit)
                await self._run_batch([self._waiting.popleft() for _ in range(size)])
                if self._gather and size >= self._many and len(self._waiting) < self._limit:
                    await asyncio.sleep(self._gather)
        finally:
            self._worker = None

    async def _run_batch(self, batch: Sequence[tuple[Item, asyncio.Future[None]]]) -> None:
        # Who was cancelled meanwhile gets its item again by redelivery.
        wanted = [(item, done) for item, done in batch if not done.done()]
        error = await self._attempt([item for item, _ in wanted])
        if error is None or isinstance(error, ProblemError) or len(wanted) == 1:
            for _, done in wanted:
                _resolve(done, error)
            return
        for item, done in wanted:
            _resolve(done, await self._attempt([item]))

    async def _attempt(self, items: Sequence[Item]) -> Exception | None:
        if not items:
            return None
        try:
            await self._work(items)
        except Exception as error:  # noqa: BLE001 - handed to whoever submitted the item
            return error
        return None


def _resolve(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
