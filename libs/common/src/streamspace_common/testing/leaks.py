"""No test may leave anything behind: no task, no child process, no thread, no logging."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import psutil
import pytest
import pytest_asyncio
import structlog

_GRACE = 2.0
"""Seconds for what is ending already."""

shared: list[Callable[[], set[int]]] = []
"""Who has processes that several tests use and restart: each tells their pids of now."""


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Undo what a test, or the program it runs in this process, did to logging."""
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)


@pytest.fixture(autouse=True)
def no_leaked_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a child process or a thread that keeps the process alive.

    Servers shared by a whole session are started before and do not count.
    """
    if "postgres_server" in request.fixturenames:
        request.getfixturevalue("postgres_server")
    before = _children()
    threads = set(threading.enumerate())
    yield
    left = _children() - before
    # A server that all tests share may have been restarted by this one.
    if left and "postgres_server" in request.fixturenames:
        left -= _shared_server(request)
    restarted = {pid for pids in shared for pid in pids()}
    left = {process for process in left if process.pid not in restarted}
    if left:
        _, left_alive = psutil.wait_procs(left, timeout=_GRACE)
        names = [_describe(process) for process in left_alive]
        for process in left_alive:
            process.kill()
        assert not names, f"child processes left behind: {names}"
    stuck = [
        thread
        for thread in set(threading.enumerate()) - threads
        if thread.is_alive() and not thread.daemon and not _is_pool(thread)
    ]
    for thread in stuck:
        thread.join(_GRACE)
    stuck = [thread for thread in stuck if thread.is_alive()]
    assert not stuck, f"threads left behind: {stuck}"


@pytest.fixture(autouse=True)
def no_leaked_tasks(request: pytest.FixtureRequest) -> None:
    """Guard async tests; the others need no event loop for it."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("task_guard")


@pytest_asyncio.fixture
async def task_guard() -> AsyncIterator[None]:
    """Fail a test that leaves tasks running on its loop, after its fixtures are gone."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=_GRACE)
    assert not left, f"tasks left behind: {sorted(task.get_name() for task in left)}"


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def _shared_server(request: pytest.FixtureRequest) -> set[psutil.Process]:
    pid = request.getfixturevalue("postgres_server").pid
    return {process for process in _children() if process.pid == pid}


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except psutil.NoSuchProcess:
        return f"{process.pid} (gone)"


def _is_pool(thread: threading.Thread) -> bool:
    """Threads of an executor end with it; the loop's own one lives as long as the loop."""
    return thread.name.startswith(("asyncio_", "ThreadPoolExecutor", "AnyIO worker"))
