"""Keeps a service's background tasks alive, and ends the service in a written order.

Every task has a name. A task that ought to run for ever and returns or crashes is
an incident: it is logged and started again, with growing delay. `FatalError` means
that going on is pointless (the bus closed for good, a setting is impossible): the
process ends with status 1 and one line.

On SIGTERM or SIGINT readiness flips first, then the drain steps run one after
another in the order they were registered, all within the drain timeout; what still
runs afterwards is cancelled. A second signal skips what is left of the drain.
"""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import uvloop

from streamspace_common.contracts.problems import ProblemError
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LAST_MOMENTS: Final = 2.0
"""Seconds cancelled tasks get to clean up."""
_COLLECT_AFTER: Final = (20_000, 20, 50)
"""Net new objects before a look at the youngest, and looks before one at the next older ones."""


class FatalError(Exception):
    """Ends the process. The message is for the operator: what is wrong, what to do."""


@dataclass(frozen=True)
class RestartPolicy:
    """How long a crashed task waits, in seconds: doubling from `first` up to `limit`.

    A task that ran for `healthy_after` starts from `first` again.
    """

    first: float = 0.5
    limit: float = 30.0
    healthy_after: float = 60.0

    def delay(self, crashes: int) -> float:
        """The wait after so many crashes in a row (1 for the first)."""
        return min(self.first * 2.0 ** min(crashes - 1, 30), self.limit)


class Supervisor:
    """One per process, made in `main.py`."""

    def __init__(
        self, name: str, *, drain_timeout: float, restarts: RestartPolicy | None = None
    ) -> None:
        self.name = name
        self._drain_timeout = drain_timeout
        self._restarts = restarts or RestartPolicy()
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._steps: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._on_draining: list[Callable[[], None]] = []
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._fatal: FatalError | None = None

    @property
    def draining(self) -> bool:
        """True from the first signal on; readiness reports it."""
        return self._stopping.is_set()

    def spawn(self, name: str, run: Callable[[], Awaitable[None]], *, restart: bool = True) -> None:
        """Run a task in the background, guarded.

        With `restart` it is meant to run for ever. Without, it may end; a crash of it
        is logged and is not the end of the service, unless it is a `FatalError`.
        """
        guarded = self._guard_eternal(name, run) if restart else self._guard_once(name, run)
        task = asyncio.create_task(guarded, name=f"{self.name}:{name}")
        self._tasks[task] = name
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def on_draining(self, flip: Callable[[], None]) -> None:
        """Call `flip` the moment the end begins, before any drain step."""
        self._on_draining.append(flip)

    def on_drain(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Add a step of the orderly end; steps run in the order they were added."""
        self._steps.append((name, step))

    def stop(self) -> None:
        """Ask for the orderly end."""
        if not self._stopping.is_set():
            self._stopping.set()
            for flip in self._on_draining:
                flip()

    def fail(self, message: str) -> None:
        """End the service with status 1; callable from callbacks that cannot raise to us."""
        if self._fatal is None:
            self._fatal = FatalError(message)
        self.stop()

    async def run(self) -> None:
        """Wait for a signal, `stop`, or a fatal error; then drain.

        Raises:
            FatalError: after the drain, when one was the cause.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            await self._stopping.wait()
            await self._drain()
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            await self._cancel_the_rest()
        if self._fatal is not None:
            raise self._fatal

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            log.warning("second signal, ending at once", signal=number.name)
            self._hurry.set()
            return
        log.info("draining", signal=number.name, timeout=self._drain_timeout)
        self.stop()

    async def _guard_eternal(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        crashes = 0
        while True:
            began = loop.time()
            crash = await self._attempt(name, run)
            if self._fatal is not None or (self.draining and crash is None):
                return
            if loop.time() - began >= self._restarts.healthy_after:
                crashes = 0
            crashes += 1
            delay = self._restarts.delay(crashes)
            log.error(
                "task ended that should run for ever" if crash is None else "task crashed",
                task=name,
                restart_in=delay,
                crashes=crashes,
                exc_info=crash,
            )
            await asyncio.sleep(delay)

    async def _guard_once(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        crash = await self._attempt(name, run)
        if crash is not None:
            log.error("task crashed", task=name, exc_info=crash)

    async def _attempt(self, name: str, run: Callable[[], Awaitable[None]]) -> Exception | None:
        try:
            await run()
        except FatalError as error:
            self.fail(str(error))
        except Exception as error:  # noqa: BLE001 - the one place that may catch everything
            return error
        return None

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_timeout
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            for name, step in self._steps:
                if self._hurry.is_set():
                    return
                await self._drain_step(name, step, max(deadline - loop.time(), 0.1), hurry)
        finally:
            hurry.cancel()

    async def _drain_step(
        self,
        name: str,
        step: Callable[[], Awaitable[None]],
        timeout: float,
        hurry: asyncio.Task[Any],
    ) -> None:
        async def run() -> None:
            await step()

        work = asyncio.create_task(run(), name=f"{self.name}:drain:{name}")
        await asyncio.wait({work, hurry}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            log.warning("drain step was cut short", step=name, after=round(timeout, 1))
            work.cancel()
            await asyncio.wait({work}, timeout=_LAST_MOMENTS)
        elif not work.cancelled() and (error := work.exception()) is not None:
            log.error("drain step failed", step=name, exc_info=error)

    async def _cancel_the_rest(self) -> None:
        tasks = dict(self._tasks)
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, stubborn = await asyncio.wait(tasks, timeout=_LAST_MOMENTS)
        for task in stubborn:
            log.warning("task does not end", task=tasks[task])


def run_service(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a service's `main` on uvloop and end the process with the right status."""
    _collect_seldom()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    except FatalError as error:
        log.error("cannot go on", reason=str(error))  # noqa: TRY400 - the reason says it all
        raise SystemExit(1) from None
    except ProblemError as error:
        # What was needed to begin went away meanwhile; whoever started this starts it again.
        log.error("cannot go on", reason=error.problem.detail)  # noqa: TRY400 - as above
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _collect_seldom() -> None:
    """Have the garbage collector look less often, and never at what was imported.

    Models made in great numbers (a page of sessions) are no cycles, yet each 700 of them had
    it look through everything: measured, half of the time that such a page took.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
