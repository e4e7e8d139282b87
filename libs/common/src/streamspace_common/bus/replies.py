"""Requests whose answers are awaited, and the one inbox that all answers come to."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from nats.aio.msg import Msg

from streamspace_common.bus.errors import ConnectionLostError, PermissionDeniedError


@dataclass(frozen=True)
class Expected:
    """One request: where its answer goes, and the answer."""

    reply: str
    answer: asyncio.Future[Msg]


class Replies:
    """Matches answers with requests by the last token of their subject."""

    def __init__(self) -> None:
        self.inbox = ""
        """Set once there is a connection."""
        self._tokens = count()
        self._waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {}

    @contextmanager
    def expecting(self, subject: str) -> Iterator[Expected]:
        """Wait for one answer to what is sent to `subject` in this block."""
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        token = f"{next(self._tokens):x}"
        self._waiting[token] = subject, future
        try:
            yield Expected(f"{self.inbox}.{token}", future)
        finally:
            del self._waiting[token]
            if future.done() and not future.cancelled():
                future.exception()  # Seen, also when the wait was cut short just then.

    async def take(self, message: Msg) -> None:
        """An answer has come."""
        waiting = self._waiting.get(message.subject.rpartition(".")[2])
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(message)

    def deny(self, error: str) -> None:
        """Fail the requests that were refused, which nobody will ever answer."""
        for subject, future in self._waiting.values():
            if f'"{subject.lower()}"' in error and not future.done():
                future.set_exception(PermissionDeniedError(f"not allowed to publish {subject}"))

    def lose(self) -> None:
        """Fail all: the connection that the answers would have come by is gone."""
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionLostError("the connection to NATS was lost"))
