"""A small file system for one server's data, so that its disk can be filled for real.

The whole run lives in a mount namespace of its own (`enter`), so what is mounted is seen by
nobody else and is gone with the last process. That needs root; without it nothing is
mounted and no disk is filled, which the run says.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

_INSIDE = "STREAMSPACE_CHAOS_MOUNTS"
_BALLAST = "ballast"
_CHUNK = 1024 * 1024


def enter(arguments: list[str]) -> None:
    """Go on in a mount namespace of our own: runs this program again, and does not return.

    Returns where we are in one already, or may not make one.
    """
    if inside() or os.geteuid() != 0 or shutil.which("unshare") is None:
        return
    probe = ["unshare", "--mount", "--propagation", "private", "true"]
    if subprocess.run(probe, check=False, capture_output=True).returncode != 0:
        return
    os.environ[_INSIDE] = "1"
    os.execvp("unshare", [*probe[:-1], sys.executable, "-m", "tests.chaos", *arguments])


def inside() -> bool:
    """Whether volumes can be mounted here."""
    return os.environ.get(_INSIDE) == "1"


class Volume:
    """A file system in memory of a fixed size, mounted at `path`."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        self._size = megabytes

    def mount(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        mode = self.path.stat().st_mode & 0o777
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self._size}m,mode={mode:o}", "tmpfs", self.path],
            check=True,
        )

    def fill(self) -> None:
        """Take all room there is; from now on writes fail with ENOSPC."""
        with contextlib.suppress(OSError), (self.path / _BALLAST).open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * _CHUNK)
        # And what a last chunk did not fit into.
        with contextlib.suppress(OSError), (self.path / _BALLAST).open("ab", buffering=0) as file:
            while True:
                file.write(b"\0" * 512)

    def make_room(self) -> None:
        (self.path / _BALLAST).unlink(missing_ok=True)

    @property
    def full(self) -> bool:
        return shutil.disk_usage(self.path).free == 0
