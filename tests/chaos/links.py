"""A network of the test's own: TCP proxies on loopback that cut, hold back, delay and fall silent.

One proxy stands between one process and one server, so that one agent can lose the bus
while all others keep it.
"""

import asyncio
import contextlib
import socket
from dataclasses import dataclass

_CHUNK = 256 * 1024


@dataclass
class _Pair:
    """One connection through the proxy: its ends, the near one first."""

    ends: tuple[asyncio.StreamWriter, ...]
    silent: bool = False


class Link:
    """One proxy. `port` is where the process connects; `upstream` where the server listens."""

    def __init__(self, name: str, upstream: int) -> None:
        self.name = name
        self.port = 0
        self.delay = 0.0
        """Seconds that every chunk is late, both ways."""
        self._upstream = upstream
        self._refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._pairs: dict[asyncio.Task[None], _Pair] = {}

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._reset_all()
        self._flowing.set()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    # Faults

    def cut(self) -> None:
        """Reset every connection, and refuse new ones until `mend`."""
        self._refusing = True
        self._reset_all()

    def hold(self) -> None:
        """Deliver nothing until `mend`, and then everything."""
        self._flowing.clear()

    def silence(self) -> None:
        """Let every connection stay open and carry nothing any more, for ever; new ones work.

        What comes is taken and thrown away, and neither end hears that the other has closed:
        so it is after a firewall or a NAT has forgotten a connection, or a cable was pulled.
        """
        for pair in self._pairs.values():
            pair.silent = True

    def mend(self) -> None:
        self._refusing = False
        self.delay = 0.0
        self._flowing.set()

    # Working

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        pair = self._pairs[task] = _Pair((writer,))
        try:
            if self._refusing:
                return
            await self._flowing.wait()
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(
                    "127.0.0.1", self._upstream, limit=_CHUNK
                )
                pair.ends = (writer, far_writer)
                if not self._refusing:
                    await self._join(pair, reader, far_reader)
        except asyncio.CancelledError:
            # The server's own end; asyncio logs a handler that was cancelled as an error.
            return
        finally:
            for each in self._pairs.pop(task).ends:
                _reset(each)

    async def _join(
        self, pair: _Pair, near: asyncio.StreamReader, far: asyncio.StreamReader
    ) -> None:
        near_writer, far_writer = pair.ends
        ways = {
            asyncio.create_task(self._carry(pair, near, far_writer)),
            asyncio.create_task(self._carry(pair, far, near_writer)),
        }
        try:
            # Neither NATS nor PostgreSQL uses half-closed connections.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if pair.silent:
                # Who has not closed must not hear that the other has.
                await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if not pair.silent:
                    writer.write(data)
                    await writer.drain()

    def _reset_all(self) -> None:
        for pair in self._pairs.values():
            for writer in pair.ends:
                _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a dead peer's would: with a reset."""
    found = writer.get_extra_info("socket")
    if found is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            found.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
            )
    writer.transport.abort()
