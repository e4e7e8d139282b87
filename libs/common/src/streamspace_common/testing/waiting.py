"""Waiting for a condition instead of sleeping for luck."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05


async def eventually(
    predicate: Callable[[], object] | Callable[[], Awaitable[object]],
    *,
    timeout: float = 10.0,
    message: str = "",
) -> None:
    """Return as soon as `predicate` (plain or async) says yes.

    An `AssertionError` from it counts as no, so that it may hold assertions.

    Raises:
        AssertionError: it did not within `timeout` seconds; says why where it can.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause = _FIRST_PAUSE
    while True:
        failure: AssertionError | None = None
        try:
            answer = predicate()
            if inspect.isawaitable(answer):
                answer = await answer
        except AssertionError as error:
            answer, failure = False, error
        if answer:
            return
        if loop.time() >= deadline:
            what = message or getattr(predicate, "__name__", "the condition")
            raise AssertionError(f"not within {timeout:g} s: {what}") from failure
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
