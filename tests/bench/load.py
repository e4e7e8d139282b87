"""A light HTTP load generator: it shares two cores with what it measures.

Connections are kept alive and hold one request each at a time. Open loop: requests
are sent at fixed moments whether or not earlier ones were answered, so a slow
answer is not hidden by a pause of the generator.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connections:
    """A pool of kept-alive connections to one server, whose API is below `prefix`."""

    def __init__(self, url: str, token: str, *, prefix: str = "/api/v1") -> None:
        self._prefix = prefix
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._token = token
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        payload = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method} {self._prefix}{path} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            f"Authorization: Bearer {self._token}",
            f"Content-Length: {len(payload)}",
            *([] if body is None else ["Content-Type: application/json"]),
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        reader, writer = await self._connection()
        writer.write("\r\n".join([*lines, "", ""]).encode() + payload)
        try:
            answer = await _read(reader)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()  # The server closed it, as it was idle for too long.
        return await asyncio.open_connection(self._host, self._port)

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[asyncio.StreamReader]:
        """The raw body of an endless answer, chunk headers included."""
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=2**22)
        writer.write(
            f"GET {self._prefix}{path} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Authorization: Bearer {self._token}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n", 1)[0], head
        try:
            yield reader
        finally:
            writer.close()

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(head[0].split()[1]), headers, body)


async def open_loop(rate: float, count: int, send: Callable[[int], Awaitable[None]]) -> list[float]:
    """Send `count` requests at `rate` a second; seconds each took from its planned moment."""
    began = time.perf_counter()
    took = [math.nan] * count

    async def one(number: int) -> None:
        planned = began + number / rate
        await asyncio.sleep(max(0.0, planned - time.perf_counter()))
        await send(number)
        took[number] = time.perf_counter() - planned

    await asyncio.gather(*(one(number) for number in range(count)))
    return took


def percentile(values: Sequence[float], share: float) -> float:
    """By the nearest rank; of an empty list, not a number."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
