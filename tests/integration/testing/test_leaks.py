"""The guards themselves: a test that leaves something running fails, and is told what."""

import subprocess
import sys
from pathlib import Path

TESTS = """
import asyncio
import subprocess
import threading

event = threading.Event()

async def test_async_and_clean():
    await asyncio.create_task(asyncio.sleep(0))

def test_sync_and_clean():
    subprocess.run(["true"])

async def test_leaves_a_task():
    asyncio.create_task(asyncio.Event().wait(), name="forgotten")
    await asyncio.sleep(0)

def test_leaves_a_child():
    subprocess.Popen(["sleep", "61"])

def test_leaves_a_thread():
    threading.Thread(target=event.wait, name="forgotten").start()

def test_ends_the_thread():
    event.set()
"""


def test_only_tests_that_leave_something_fail_and_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    options = ["-q", "-o", "asyncio_mode=auto", "-p", "no:randomly", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "6 passed, 3 errors" in done.stdout
    for told in (
        "tasks left behind: ['forgotten']",
        "child processes left behind: ['",
        "sleep 61",
        "threads left behind: [<Thread(forgotten",
    ):
        assert told in done.stdout
