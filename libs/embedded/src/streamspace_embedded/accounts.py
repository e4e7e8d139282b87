"""Running a program as another user than root.

PostgreSQL refuses to run as root, yet `make up` in a container usually is root. The
server then runs as `postgres` or `nobody`, and its data folder belongs to that user.
Where that user could not even reach the folder (a clone under `/root`), it is given
the one capability to walk through folders, and nothing else.
"""

import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CANDIDATES: Final = ("postgres", "nobody")
_WALK: Final = "dac_read_search"
_OVERRIDE: Final = "dac_override"
_KEEP: Final = "setpcap"
_CAPABILITY_BITS: Final = {_OVERRIDE: 1, _WALK: 2, _KEEP: 8}


class AccountError(Exception):
    """No user can be found, or given enough rights, to run the program."""


@dataclass(frozen=True)
class Account:
    """Who runs a program: its ids, and a capability it keeps when it needs one."""

    uid: int
    gid: int
    capability: str | None = None

    def command(self, arguments: Sequence[str]) -> list[str]:
        """`arguments`, to be run as this account."""
        if os.geteuid() == self.uid:
            return list(arguments)
        # Without `no_setuid_fixup`, access(2) ignores the capabilities of everybody but root,
        # and PostgreSQL looks at its programs with access(2).
        keep = (
            [
                *("--securebits", "+no_setuid_fixup"),
                *("--inh-caps", f"-all,+{self.capability}"),
                *("--ambient-caps", f"-all,+{self.capability}"),
            ]
            if self.capability
            else ["--inh-caps", "-all"]
        )
        return [
            "setpriv",
            f"--reuid={self.uid}",
            f"--regid={self.gid}",
            "--clear-groups",
            *keep,
            "--",
            *arguments,
        ]

    def own(self, folder: Path) -> None:
        """Make the folder, private to this account."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0 and folder.stat().st_uid != self.uid:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self.uid, self.gid, follow_symlinks=False)
        folder.chmod(0o700)


def unprivileged(folder: Path, *programs: Path) -> Account:
    """The account for a server with its data in `folder`: ourselves, unless we are root.

    Raises:
        AccountError: we are root and cannot become anybody else who reaches the folder.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    if shutil.which("setpriv") is None:
        raise AccountError("setpriv (Debian package util-linux) is needed to run as root.")
    entry = _owner(folder) or _candidate()
    reachable = all(_reaches(entry, path) for path in (folder.parent, *programs))
    return Account(entry.pw_uid, entry.pw_gid, None if reachable else _capability())


def _owner(folder: Path) -> pwd.struct_passwd | None:
    """Whoever owned the data at the last start keeps it."""
    if not folder.exists() or folder.stat().st_uid == 0:
        return None
    try:
        return pwd.getpwuid(folder.stat().st_uid)
    except KeyError:
        return None


def _candidate() -> pwd.struct_passwd:
    for name in _CANDIDATES:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AccountError(
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody. "
        "Run this as an ordinary user."
    )


def _reaches(account: pwd.struct_passwd, path: Path) -> bool:
    for folder in (path, *path.parents):
        if not folder.exists():
            continue
        status = folder.stat()
        walks = stat.S_IXUSR if status.st_uid == account.pw_uid else stat.S_IXOTH
        if not status.st_mode & walks:
            return False
    return True


def _capability() -> str:
    """The least capability we hold that lets another user through our folders."""
    bounding = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if line.startswith("CapBnd:")
    )
    held = {name for name, bit in _CAPABILITY_BITS.items() if bounding >> bit & 1}
    for name in (_WALK, _OVERRIDE):
        if {name, _KEEP} <= held:
            return name
    raise AccountError(
        "PostgreSQL does not run as root, and no other user can reach this folder. "
        "Run this as an ordinary user, or move it out of root's home."
    )
