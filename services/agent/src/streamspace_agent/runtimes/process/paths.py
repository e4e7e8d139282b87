"""Where a session's files lie.

    <state>/homes/<home>/           a user's home, shared by the user's sessions, kept
    <state>/sessions/<id>/          all else of a running session; gone when it stops
    <state>/records/<id>.json       what the agent knows of it
    <state>/fences/<id>             the highest generation seen, kept for a while
    <sockets>/<12 hex>/             its sockets, in a place with a short path

A unix socket's path is limited to 107 bytes, and desktop programs put sockets of their
own below XDG_RUNTIME_DIR, so that directory is short: below the state directory where
that is short enough, else a private directory of this user in the system's place for it.
"""

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import SessionSpec

_SOCKET_PATH_LIMIT = 107
_SOCKET_NAME_ROOM = 44
"""Bytes left for `/<12 hex>/x/` and the longest socket name seen in practice."""
_HOME_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,127}$")


class UnsafeDirectoryError(Exception):
    """A directory that must be private belongs to somebody else, or is open to others."""


def private_directory(path: Path) -> Path:
    """Make `path` with mode 0700, or make sure that it is ours and private.

    Raises:
        UnsafeDirectoryError: it is a link, not ours, or others may enter it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UnsafeDirectoryError(f"{path} is not a directory of this user")
    if found.st_mode & 0o077:
        raise UnsafeDirectoryError(f"{path} is open to other users; run: chmod 700 {path}")
    return path


def remove_tree(path: Path) -> None:
    """Remove a directory with everything in it; one that is not there is fine.

    Users make directories they may not write to (package caches do); those are opened
    first.
    """

    def open_and_retry(function: Callable[..., Any], name: str, info: Any) -> None:
        if isinstance(info[1], FileNotFoundError):
            return
        if not isinstance(info[1], PermissionError):
            raise info[1]
        parent = Path(name).parent
        parent.chmod(0o700)
        if function in (os.scandir, os.open):
            Path(name).chmod(0o700)
            shutil.rmtree(name)
        else:
            function(name)

    shutil.rmtree(path, onerror=open_and_retry)


def _short_place(state: Path, installation: str) -> Path:
    beside = state / "run"
    if len(os.fsencode(beside)) + _SOCKET_NAME_ROOM <= _SOCKET_PATH_LIMIT:
        return beside
    name = f"streamspace-{installation[:8]}"
    offered = os.environ.get("XDG_RUNTIME_DIR")
    if offered and Path(offered).is_dir() and os.access(offered, os.W_OK):
        return Path(offered) / name
    # Anybody may write to /tmp: `private_directory` refuses a place made by another user.
    return Path("/tmp") / f"{name}-{os.getuid()}"  # noqa: S108


@dataclass(frozen=True)
class Layout:
    """The directories of one installation; `installation` is a name no other one has."""

    state: Path
    sockets: Path
    installation: str

    @classmethod
    def prepare(cls, state_dir: Path, runtime_dir: Path | None = None) -> "Layout":
        """Make what is missing.

        Raises:
            UnsafeDirectoryError: a directory is open to other users.
            OSError: it cannot be made.
        """
        state = private_directory(state_dir.absolute()).resolve()
        installation = hashlib.sha256(os.fsencode(state)).hexdigest()[:16]
        sockets = private_directory(
            runtime_dir.absolute() if runtime_dir else _short_place(state, installation)
        )
        if len(os.fsencode(sockets)) + _SOCKET_NAME_ROOM > _SOCKET_PATH_LIMIT:
            raise UnsafeDirectoryError(
                f"{sockets} is too long a path for sockets; choose a runtime directory of at "
                f"most {_SOCKET_PATH_LIMIT - _SOCKET_NAME_ROOM} characters"
            )
        for name in ("homes", "sessions", "records", "fences"):
            private_directory(state / name)
        return cls(state, sockets, installation)

    @property
    def records(self) -> Path:
        return self.state / "records"

    @property
    def fences(self) -> Path:
        return self.state / "fences"

    def home(self, spec: SessionSpec) -> Path:
        """The session's home directory: the user's, or one that ends with the session.

        Raises:
            ValueError: the name is not that of a directory of ours.
        """
        if not spec.persistent_home:
            return self.temporary_home(spec.session_id)
        if not _HOME_NAME.match(spec.home):
            raise ValueError(f"not a home's name: {spec.home!r}")
        return self.state / "homes" / spec.home

    def temporary_home(self, session: SessionId) -> Path:
        """Home of a session without a persistent one; outlives hibernation only."""
        return self.state / "homes" / f".{session}"

    def session(self, session: SessionId) -> "SessionPlaces":
        short = hashlib.sha256(session.encode()).hexdigest()[:12]
        return SessionPlaces(self.state / "sessions" / session, self.sockets / short)


@dataclass(frozen=True)
class SessionPlaces:
    """The directories of one running session; none outlives it."""

    root: Path
    sockets: Path

    @property
    def rfb(self) -> Path:
        """The socket Xvnc answers viewers on."""
        return self.sockets / "rfb"

    @property
    def xdg_runtime(self) -> Path:
        return self.sockets / "x"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def configuration(self) -> Path:
        return self.root / "config"

    @property
    def xauthority(self) -> Path:
        return self.root / "xauthority"

    def log(self, role: str) -> Path:
        return self.root / f"{role}.log"

    def make(self) -> None:
        """Make all of them, private and empty: what an earlier run left is removed."""
        self.remove()
        # It may lie below /tmp, where things that rest for long are cleaned away.
        private_directory(self.sockets.parent)
        for path in (
            self.root,
            self.temporary,
            self.configuration,
            self.sockets,
            self.xdg_runtime,
        ):
            path.mkdir(mode=0o700)

    def remove(self) -> None:
        remove_tree(self.root)
        remove_tree(self.sockets)
