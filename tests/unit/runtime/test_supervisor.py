"""Tasks are kept alive; the end comes in a written order and within its time."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.runtime.supervisor import (
    FatalError,
    RestartPolicy,
    Supervisor,
    run_service,
)
from streamspace_common.testing.waiting import eventually

AT_ONCE = RestartPolicy(first=0.001, limit=0.002)


def supervisor(drain_timeout: float = 5.0) -> Supervisor:
    return Supervisor("tests", drain_timeout=drain_timeout, restarts=AT_ONCE)


@asynccontextmanager
async def running(supervised: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(supervised.run())
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        supervised.stop()
        with contextlib.suppress(FatalError):
            await task


def test_the_wait_doubles_up_to_its_limit() -> None:
    policy = RestartPolicy(first=0.5, limit=30.0)
    assert [policy.delay(n) for n in (1, 2, 3, 6, 7, 100, 10**9)] == [
        0.5, 1.0, 2.0, 16.0, 30.0, 30.0, 30.0,
    ]  # fmt: skip


async def test_a_crashed_task_is_started_again() -> None:
    supervised, lives = supervisor(), 0

    async def fragile() -> None:
        nonlocal lives
        lives += 1
        if lives < 4:
            raise ValueError("crash")
        await asyncio.Event().wait()

    supervised.spawn("fragile", fragile)
    async with running(supervised):
        await eventually(lambda: lives == 4)


async def test_a_task_that_returns_is_started_again() -> None:
    supervised, lives = supervisor(), 0

    async def brief() -> None:
        nonlocal lives
        lives += 1

    supervised.spawn("brief", brief)
    async with running(supervised):
        await eventually(lambda: lives >= 3)


async def test_a_task_that_may_end_runs_once() -> None:
    supervised, lives = supervisor(), 0

    async def once() -> None:
        nonlocal lives
        lives += 1
        raise ValueError("crash")

    supervised.spawn("once", once, restart=False)
    other = asyncio.Event()

    async def later() -> None:
        other.set()
        await asyncio.Event().wait()

    async with running(supervised) as run:
        supervised.spawn("later", later)
        await other.wait()
        assert not run.done()
    assert lives == 1


async def test_a_fatal_error_ends_everything_after_the_drain() -> None:
    supervised, drained = supervisor(), []

    async def doomed() -> None:
        raise FatalError("the bus closed for good")

    async def step() -> None:
        drained.append("step")

    supervised.on_drain("step", step)
    supervised.spawn("doomed", doomed)
    with pytest.raises(FatalError, match="the bus closed for good"):
        await supervised.run()
    assert drained == ["step"]


async def test_a_callback_can_end_everything() -> None:
    supervised = supervisor()
    asyncio.get_running_loop().call_soon(supervised.fail, "closed")
    with pytest.raises(FatalError, match="closed"):
        await supervised.run()


async def test_the_end_has_an_order() -> None:
    supervised, order = supervisor(), []

    def step(name: str) -> Callable[[], asyncio.Future[None]]:
        async def run() -> None:
            await asyncio.sleep(0)
            order.append(name)

        return lambda: asyncio.ensure_future(run())

    async def working() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("task cancelled")

    supervised.on_draining(lambda: order.append("not ready"))
    supervised.on_drain("intake", step("stop taking work"))
    supervised.on_drain("work", step("finish work"))
    supervised.spawn("working", working)
    run = asyncio.create_task(supervised.run())
    await asyncio.sleep(0)
    supervised.stop()
    assert supervised.draining
    await run
    assert order == ["not ready", "stop taking work", "finish work", "task cancelled"]


async def test_a_step_that_hangs_is_cut_short_and_the_next_one_runs() -> None:
    supervised, order = supervisor(drain_timeout=0.05), []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            order.append("cut short")

    async def fails() -> None:
        order.append("fails")
        raise ValueError("crash")

    async def last() -> None:
        order.append("last")

    for name, step in (("hangs", hangs), ("fails", fails), ("last", last)):
        supervised.on_drain(name, step)
    supervised.stop()
    await supervised.run()
    assert order == ["cut short", "fails", "last"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_begins_the_end(number: signal.Signals) -> None:
    supervised = supervisor()
    run = asyncio.create_task(supervised.run())
    await asyncio.sleep(0)
    os.kill(os.getpid(), number)
    await run
    assert supervised.draining


async def test_a_second_signal_skips_the_rest_of_the_drain() -> None:
    supervised, begun = supervisor(drain_timeout=60), asyncio.Event()
    skipped: list[str] = []

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def never() -> None:
        skipped.append("ran")

    supervised.on_drain("endless", endless)
    supervised.on_drain("never", never)
    run = asyncio.create_task(supervised.run())
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    await begun.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await run
    assert skipped == []


PROGRAM = """
import asyncio
from streamspace_common.runtime.logging import configure
from streamspace_common.runtime.supervisor import FatalError, Supervisor, run_service

async def main():
    configure("tests", "INFO", "json")
    supervisor = Supervisor("tests", drain_timeout=5)
    async def step():
        print("drained", flush=True)
    supervisor.on_drain("step", step)
    async def work():
        print("up", flush=True)
        %s
        await asyncio.Event().wait()
    supervisor.spawn("work", work)
    await supervisor.run()

run_service(main)
"""


def test_a_process_ends_well_on_sigterm() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM % "pass"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b"drained\n")


def test_a_process_ends_with_one_line_and_status_1_on_a_fatal_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM % 'raise FatalError("no keys")'],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "up\ndrained\n")
    [line] = done.stderr.splitlines()
    assert '"reason": "no keys"' in line


@pytest.mark.parametrize(
    "error",
    [
        FatalError("no database"),
        # A service whose first transaction meets an outage.
        ProblemError.of(Code.SERVICE_UNAVAILABLE, "The database cannot be reached."),
    ],
    ids=repr,
)
def test_an_error_before_anything_runs_is_status_1_and_no_traceback(error: Exception) -> None:
    async def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_service(main)
    assert ended.value.code == 1
    assert ended.value.__suppress_context__
