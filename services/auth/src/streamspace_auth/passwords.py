"""Password hashing: Argon2id through pwdlib, off the event loop.

A hash takes tens of milliseconds of a core and 64 MiB on purpose, so it runs in a
small thread pool of its own (Argon2 releases the interpreter lock) and the loop goes
on serving. A user that does not exist is checked against a hash that nothing
matches, so that the time of an answer does not tell which names are real.
"""

import asyncio
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers import HasherProtocol
from pwdlib.hashers.argon2 import Argon2Hasher

from streamspace_auth.ports import PasswordCheck

T = TypeVar("T")


class Argon2Passwords:
    """Implements `ports.Passwords`.

    Args:
        threads: hashes computed at once.
        hasher: by default the parameters pwdlib recommends. A kept hash with other
            ones still verifies, and is replaced at the next login.
    """

    def __init__(self, *, threads: int, hasher: HasherProtocol | None = None) -> None:
        self._hashing = PasswordHash((hasher or Argon2Hasher(),))
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._nobody = self._hashing.hash(secrets.token_urlsafe(32))

    async def hash(self, password: str) -> str:
        text = _normal(password)
        return await self._run(lambda: self._hashing.hash(text))

    async def check(self, password: str, kept: str | None) -> PasswordCheck:
        text = _normal(password)
        matches, upgraded = await self._run(
            lambda: self._hashing.verify_and_update(text, kept or self._nobody)
        )
        return PasswordCheck(matches and kept is not None, upgraded)

    def close(self) -> None:
        """End the threads; a hash that is being computed is finished first."""
        self._threads.shutdown(cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _normal(password: str) -> str:
    """One form for one password: keyboards differ in how they compose an accented letter."""
    return unicodedata.normalize("NFC", password)
