"""Whether other agents use the same state directory: one shared lock, held while alive."""

import fcntl
import os
from pathlib import Path


class Presence:
    """This agent among those of one state directory; a killed one counts no more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def enter(self) -> None:
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._handle, fcntl.LOCK_SH)

    def is_last(self) -> bool:
        """Whether nobody else is here; then nobody can come before we `leave`."""
        if self._handle is None:
            return False
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A failed upgrade gives the shared lock up; we leave in a moment anyway.
            return False
        return True

    def leave(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
