"""Waits until a session answers as its viewers will ask it.

An RFB server is asked once: some count every connection that says nothing as a failed
login, and shut out who does it too often. So what is listening gets all the time there is
to greet, and only what is not listening yet is asked again.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

from streamspace_common.contracts.catalog import Connection, Protocol

_AGAIN_AFTER = 0.05
_CONNECT_SECONDS = 5.0
_GREETING = b"RFB "
_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3})")
_UNAVAILABLE = range(502, 505)
"""What a front server says while the application behind it is not there yet."""


async def until_it_answers(address: str, connection: Connection) -> None:
    """Return once the session answers; for ever if it never does."""
    ask = _serves_http if connection.protocol is Protocol.HTTP else _greets
    while True:
        # Refused, lost, or not reachable yet.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if await ask(address, connection):
                return
        await asyncio.sleep(_AGAIN_AFTER)


async def _greets(address: str, connection: Connection) -> bool:
    async with _open(address, connection.port) as (reader, _):
        return await reader.readexactly(len(_GREETING)) == _GREETING


async def _serves_http(address: str, connection: Connection) -> bool:
    async with _open(address, connection.port) as (reader, writer):
        path = connection.path if connection.path.startswith("/") else "/"
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        answer = await reader.readexactly(12)
    status = _STATUS.match(answer)
    # Whoever answers with something else speaks TLS: it is up.
    return status is None or int(status[1]) not in _UNAVAILABLE


@contextlib.asynccontextmanager
async def _open(
    address: str, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with asyncio.timeout(_CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(address, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
