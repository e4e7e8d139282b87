"""The last credential, in a file of its own (mode 0600), for a restart while auth is away.

Replicas may share a state directory, and each has a key of its own: a slot belongs to
whoever holds the lock of its file, which ends with the process.
"""

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

from streamspace_common.bus import Identity
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.private_files import write_private

log = get_logger(__name__)

_SLOTS = 64
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_LEAST_LEFT = 5.0
"""Seconds: with less, it would end while it is used for the first time."""


class CredentialFile:
    """Implements `credential.Keeping`; holds one slot until the process ends.

    Args:
        folder: only this user may look inside.
        cluster: another cluster's credential is none of ours.
        clock: tells what has expired.
    """

    def __init__(self, folder: Path, cluster: ClusterId, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._lock: int | None = None
        self._path: Path | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_slot(folder)
        except OSError as error:
            log.warning("no credential can be kept", folder=str(folder), error=str(error))

    def _take_slot(self, folder: Path) -> None:
        for number in range(_SLOTS):
            path = folder / f"credential-{number}.json"
            handle = os.open(
                path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            self._lock, self._path = handle, path
            return

    def load(self) -> tuple[Identity, float] | None:
        if self._path is None:
            return None
        try:
            kept = json.loads(self._path.read_bytes())
            left = float(kept["expiresAt"]) - self._clock.now().timestamp()
            if kept["cluster"] != self._cluster or left < _LEAST_LEFT:
                return None
            return Identity(kept["seed"], kept["token"]), left
        except (OSError, ValueError, KeyError, TypeError):
            # None yet, or none that this version understands: another one is asked for.
            return None

    def save(self, identity: Identity, seconds_left: float) -> None:
        if self._path is None:
            return
        kept = {
            "cluster": self._cluster,
            "seed": identity.seed,
            "token": identity.token,
            "expiresAt": self._clock.now().timestamp() + seconds_left,
        }
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self._path, json.dumps(kept) + "\n")
        except OSError as error:
            log.warning("credential not kept", path=str(self._path), error=str(error))

    def forget(self) -> None:
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the slot to another process."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
