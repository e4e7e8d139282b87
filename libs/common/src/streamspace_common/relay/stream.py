"""A leg that is a plain byte stream: a TCP or unix socket."""

import asyncio
import os
from typing import cast

import aiofastnet

from streamspace_common.relay.pump import LOST, NORMAL, Ending, Leg, Pieces

READ_SIZE = 256 * 1024
"""Bytes per read. Also the largest piece handed on, so far below a frame's limit."""

# One buffer for all connections: what is read is handed on before the next read.
_shared = memoryview(bytearray(READ_SIZE))


class StreamLeg(asyncio.BufferedProtocol, Leg):
    """A socket as a leg. The other end's EOF ends it, once what it sent is through."""

    def write_all(self, pieces: Pieces) -> None:
        if self._transport is not None and self._closing is None:
            self._transport.writelines(pieces)

    def _say_goodbye(self, code: int, reason: str) -> None:
        if self._transport is not None:
            self._transport.close()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connected(cast(asyncio.Transport, transport))

    def get_buffer(self, sizehint: int) -> memoryview:
        return _shared

    def buffer_updated(self, nbytes: int) -> None:
        self._deliver((_shared[:nbytes],), nbytes)

    def eof_received(self) -> bool:
        self._closing = self._closing or Ending(NORMAL, "The other end closed the connection.")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if exc is None:
            self._ended(Ending(NORMAL))
        else:
            self._ended(Ending(LOST, f"The connection was lost: {_words(exc)}."))

    def pause_writing(self) -> None:
        Leg.pause_writing(self)

    def resume_writing(self) -> None:
        Leg.resume_writing(self)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


async def connect_stream(
    address: str | os.PathLike[str] | tuple[str, int], *, timeout: float = 5.0
) -> StreamLeg:
    """Connect to a unix socket's path or a (host, port) as a leg.

    Raises:
        OSError: no connection (TimeoutError included).
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        if isinstance(address, tuple):
            host, port = address
            _, leg = await aiofastnet.create_connection(loop, StreamLeg, host, port)
        else:
            _, leg = await aiofastnet.create_unix_connection(loop, StreamLeg, os.fspath(address))
    return leg


def adopt(transport: asyncio.Transport) -> StreamLeg:
    """Take an open connection over from another protocol, as a leg."""
    leg = StreamLeg()
    transport.set_protocol(leg)
    leg.connection_made(transport)
    return leg
