"""Learns from the event stream when each session reached a state."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.bench.load import Connections


class Followed:
    """Moments (wall clock, seconds) at which a state of a session was seen by a client."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], float] = {}
        self._waiting: dict[tuple[str, str], asyncio.Event] = {}

    def note(self, session: str, state: str) -> None:
        self.seen[session, state] = time.time()
        if event := self._waiting.pop((session, state), None):
            event.set()

    async def wait(self, session: str, state: str, seconds: float = 60) -> float:
        """The moment; waits for it."""
        key = (session, state)
        if key not in self.seen:
            event = self._waiting.setdefault(key, asyncio.Event())
            async with asyncio.timeout(seconds):
                await event.wait()
        return self.seen[key]


@asynccontextmanager
async def following(connections: Connections) -> AsyncIterator[Followed]:
    """Follow one's own sessions for as long as the block runs."""
    followed = Followed()
    async with connections.stream("/events") as reader:
        task = asyncio.create_task(_read(reader, followed))
        try:
            yield followed
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, followed: Followed) -> None:
    name = ""
    while line := await reader.readline():
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif line.startswith(b"data: ") and name == "state":
            data = json.loads(line[6:])
            followed.note(data["sessionId"], data["toState"])
