"""The engine's errors as failures that say whether a retry helps; work that is not cut in two."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from streamspace_agent.ports import PassingFailure
from streamspace_agent.runtimes.cleanup import undisturbed
from streamspace_agent.runtimes.docker.engine import EngineError, EngineUnreachableError

T = TypeVar("T")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Whatever the engine refuses on the way may work the next time."""
    try:
        yield
    except EngineUnreachableError as error:
        raise PassingFailure(f"The container engine does not answer: {error}.") from error
    except EngineError as error:
        raise PassingFailure(f"The container engine refused: {error}.") from error


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Wait for the engine's answer even while being cancelled: it would act all the same."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await undisturbed(_done(task))
        raise


async def _done(task: asyncio.Future[Any]) -> None:
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
