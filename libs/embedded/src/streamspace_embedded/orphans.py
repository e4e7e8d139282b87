"""Takes in and buries processes whose parent died: desktops of a killed agent.

On Linux a subreaper becomes the parent of its descendants' orphans. Without one they
would belong to the machine's first process, which in a container often buries nobody.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans(own: Callable[[], set[int]], poll_own: Callable[[], None]) -> None:
    """Become the subreaper, and reap every ended child that is none of `own` pids.

    `poll_own` lets the owners of our own children reap them.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, _reap, own, poll_own)


def _reap(own: Callable[[], set[int]], poll_own: Callable[[], None]) -> None:
    ours = own()
    for pid in _children():
        if pid not in ours:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue
    poll_own()


def _children() -> list[int]:
    """Our children by the kernel's own list, which it keeps per thread."""
    found: list[int] = []
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, children.read_text(encoding="ascii").split())
    return found
