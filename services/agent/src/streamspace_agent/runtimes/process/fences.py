"""The generation written on a session, and the lock under which it is worked on.

One small file per session holds the highest generation any command had. It outlives
the session, so that a start which arrives late never starts anything, and it is shared
by every agent that uses the same state directory. Two locks, both let go by the kernel
when their holder dies:

* a moment's lock on the whole directory, to compare and write a generation;
* a long one on the session's own file, held while its processes are started or ended.

A newer command writes its generation without waiting for the long lock; whoever holds
that reads the file again before it calls its work done.
"""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from streamspace_agent.ports import Superseded
from streamspace_common.contracts.ids import SessionId

KEPT_FOR = 8 * 24 * 3600.0
"""Seconds: a day longer than a command can wait in its stream."""
_RETRY_LOCK_EVERY = 0.01
_WIDTH = 20
"""Digits, so that every write replaces the whole content at once."""


class Fences:
    """The fences in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._gate = directory / ".lock"

    def current(self, session: SessionId) -> int:
        """The highest generation written, 0 for a session never heard of."""
        try:
            return int((self._directory / session).read_bytes() or b"0")
        except FileNotFoundError:
            return 0

    def sessions(self) -> list[SessionId]:
        return [SessionId(path.name) for path in self._directory.glob("[a-z0-9]*")]

    def raise_to(self, session: SessionId, generation: int) -> None:
        """Write `generation` unless a higher one is there.

        Raises:
            Superseded: a higher one is there.
        """
        with self._exclusive():
            self.check(session, generation)
            handle = os.open(self._directory / session, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(handle, str(generation).zfill(_WIDTH).encode(), 0)
            finally:
                os.close(handle)

    def check(self, session: SessionId, generation: int) -> None:
        """Read the generation again.

        Raises:
            Superseded: it is a higher one.
        """
        newer = self.current(session)
        if newer > generation:
            raise Superseded(newer)

    @contextlib.asynccontextmanager
    async def hold(self, session: SessionId) -> AsyncIterator[None]:
        """Be the only one, in this agent or another, that works on the session."""
        while True:
            handle = os.open(self._directory / session, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                await self._lock(handle)
                if self._is_current(handle, session):
                    yield
                    return
            finally:
                os.close(handle)

    def is_held(self, session: SessionId) -> bool:
        """Whether somebody works on the session at this moment."""
        try:
            handle = os.open(self._directory / session, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def prune(self, keep: Callable[[SessionId], bool], older_than: float = KEPT_FOR) -> int:
        """Forget fences nobody can need any more; returns how many."""
        oldest = time.time() - older_than
        pruned = 0
        for session in self.sessions():
            path = self._directory / session
            with self._exclusive():
                if path.stat().st_mtime < oldest and not keep(session):
                    if self.is_held(session):
                        continue
                    path.unlink()
                    pruned += 1
        return pruned

    async def _lock(self, handle: int) -> None:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(_RETRY_LOCK_EVERY)
            else:
                return

    def _is_current(self, handle: int, session: SessionId) -> bool:
        """False when the file was pruned between our opening and our locking it."""
        try:
            found = (self._directory / session).stat()
        except FileNotFoundError:
            return False
        return found.st_ino == os.fstat(handle).st_ino

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        handle = os.open(self._gate, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
