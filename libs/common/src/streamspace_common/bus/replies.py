"""Requests whose answers are awaited, and where their answers come to.

That is an inbox of ours for all but the agents of clusters. They are in accounts of their own,
and answer where the subject says which cluster it is; so whoever asked one cluster cannot be
answered by another one.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from nats.aio.msg import Msg

from streamspace_common.bus.errors import ConnectionLostError, PermissionDeniedError
from streamspace_common.contracts import subjects
from streamspace_common.contracts.ids import ClusterId


@dataclass(frozen=True)
class Expected:
    """One request: where its answer goes, and the answer."""

    reply: str
    answer: asyncio.Future[Msg]


class Replies:
    """Matches answers with requests by their subject."""

    def __init__(self) -> None:
        self.inbox = ""
        """Set once there is a connection."""
        self._tokens = count()
        self._waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {}

    @property
    def asker(self) -> str:
        """Who asks, in the subject of an agent's answer: this connection and no other."""
        return self.inbox.rpartition(".")[2]

    @contextmanager
    def expecting(self, subject: str, cluster: ClusterId | None) -> Iterator[Expected]:
        """Wait for one answer, of `cluster` if any, to what is sent to `subject` in this block."""
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        token = f"{next(self._tokens):x}"
        reply = (
            f"{self.inbox}.{token}"
            if cluster is None
            else subjects.answer(cluster, self.asker, token)
        )
        self._waiting[reply] = subject, future
        try:
            yield Expected(reply, future)
        finally:
            del self._waiting[reply]
            if future.done() and not future.cancelled():
                future.exception()  # Seen, also when the wait was cut short just then.

    async def take(self, message: Msg) -> None:
        """An answer has come."""
        waiting = self._waiting.get(message.subject)
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
