"""Tasks that belong to connections: named, kept, and never failing silently."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_LAST_MOMENTS = 2.0
"""Seconds cancelled tasks get to clean up."""


class Tasks:
    """The running tasks of all connections."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(
        self,
        name: str,
        work: Coroutine[Any, Any, None],
        *,
        on_crash: Callable[[], None] = lambda: None,
    ) -> None:
        """Run `work`; a crash is logged and `on_crash` called."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("connection task crashed", task=name, exc_info=error)
                on_crash()

        task.add_done_callback(done)

    async def finish(self, timeout: float) -> None:
        """Wait for all to end; cancel what has not after `timeout` seconds."""
        if self._running:
            await asyncio.wait(self._running, timeout=timeout)
        left = list(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_LAST_MOMENTS)
