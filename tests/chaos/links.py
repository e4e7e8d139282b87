"""A network of the test's own: TCP proxies on loopback that can cut, hold back and delay.

One proxy stands between one process and one server, so that one agent can lose the bus
while all others keep it.
"""

import asyncio
import contextlib
import socket

_CHUNK = 256 * 1024


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
        self._pairs: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

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

    def mend(self) -> None:
        self._refusing = False
        self.delay = 0.0
        self._flowing.set()

    # Working

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs[task] = (writer,)
        try:
            if self._refusing:
                return
            await self._flowing.wait()
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection(
                    "127.0.0.1", self._upstream, limit=_CHUNK
                )
                self._pairs[task] = (writer, far_writer)
                if not self._refusing:
                    await self._join(reader, writer, far_reader, far_writer)
        except asyncio.CancelledError:
            # The server's own end; asyncio logs a handler that was cancelled as an error.
            return
        finally:
            for each in self._pairs.pop(task):
                _reset(each)

    async def _join(
        self,
        near_reader: asyncio.StreamReader,
        near_writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        ways = {
            asyncio.create_task(self._carry(near_reader, far_writer)),
            asyncio.create_task(self._carry(far_reader, near_writer)),
        }
        try:
            # Neither NATS nor PostgreSQL uses half-closed connections.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()

    def _reset_all(self) -> None:
        for writers in self._pairs.values():
            for writer in writers:
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
