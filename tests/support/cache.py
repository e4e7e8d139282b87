"""What is slow to make and never changes is made once and kept outside the repository.

A name ends in a hash of what the thing was made from: a change makes a new one beside
the old one, and two branches never fight over one file. Two processes that want the
same thing at once make it once.
"""

import contextlib
import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path


def folder() -> Path:
    """Where things are kept; made if need be."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(base).expanduser().absolute() / "streamspace"
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()[:16]


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a name among all processes of this machine; waits for whoever holds it."""
    with (folder() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Tell on the terminal what takes so long, and how long it took."""
    began = time.monotonic()
    print(f"  {title} ...", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        print(f"  {title}: failed", file=sys.stderr, flush=True)
        raise
    print(f"  {title}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
