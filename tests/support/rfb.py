"""Just enough of an RFB client to see what a desktop shows, over a WebSocket."""

import asyncio
import struct
from collections import Counter

import websockets

EXTENDED_DESKTOP_SIZE = -308
RAW = 0
BANNER = b"RFB 003.008\n"


class RfbClient:
    """A handshake, full updates in raw pixels, and a resize.

    `colours` counts the pixels that came, by the four bytes of each: blue, green, red and
    one that says nothing, unless the server's own format is another.
    """

    def __init__(self, socket: websockets.ClientConnection, *, patience: float = 10) -> None:
        self._socket = socket
        self._patience = patience
        self._data = b""
        self.size = (0, 0)
        self.pixels = 0
        self.colours: Counter[bytes] = Counter()

    async def connect(self) -> None:
        assert await self._read(12) == BANNER
        await self._socket.send(BANNER)
        count = (await self._read(1))[0]
        assert 1 in await self._read(count)
        await self._socket.send(b"\x01")
        assert await self._read(4) == bytes(4)
        await self._socket.send(b"\x01")
        width, height, _, name_length = struct.unpack(">HH16sI", await self._read(24))
        await self._read(name_length)
        self.size = (width, height)
        await self._socket.send(struct.pack(">BxHii", 2, 2, RAW, EXTENDED_DESKTOP_SIZE))

    async def ask(self, *, incremental: bool = False) -> None:
        await self._socket.send(struct.pack(">BBHHHH", 3, incremental, 0, 0, *self.size))

    async def resize(self, width: int, height: int) -> None:
        await self._socket.send(
            struct.pack(">BxHHBxIHHHHI", 251, width, height, 1, 0, 0, 0, width, height, 0)
        )

    async def see_all(self) -> None:
        """Ask until every pixel has come; a full request is answered by sizes first."""
        await self.ask()
        await self.update()
        while self.pixels < self.size[0] * self.size[1]:
            await self.ask(incremental=True)
            await self.update()

    async def update(self) -> None:
        """Read one framebuffer update."""
        while (await self._read(1))[0] != 0:
            pass  # bell and colour map have no place here; nothing else comes unasked
        _, count = struct.unpack(">BH", await self._read(3))
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", await self._read(12))
            if encoding == EXTENDED_DESKTOP_SIZE:
                screens = (await self._read(4))[0]
                await self._read(16 * screens)
                if y == 0:
                    self.size = (width, height)
            else:
                assert encoding == RAW
                data = await self._read(4 * width * height)
                self.pixels += width * height
                self.colours.update(pixel for (pixel,) in struct.iter_unpack("4s", data))

    async def _read(self, size: int) -> bytes:
        async with asyncio.timeout(self._patience):
            while len(self._data) < size:
                piece = await self._socket.recv()
                assert isinstance(piece, bytes)
                self._data += piece
        data, self._data = self._data[:size], self._data[size:]
        return data
