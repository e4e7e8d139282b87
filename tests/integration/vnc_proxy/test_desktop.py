"""A real RFB server behind the relay: two viewers, one of them only looking."""

import asyncio
import struct
from pathlib import Path

import pytest_asyncio
import websockets
from tests.integration.vnc_proxy.parties import Proxy, ScriptedAgent

from streamspace_common.contracts.sessions import ViewerRole
from streamspace_common.testing.waiting import eventually

EXTENDED_DESKTOP_SIZE = -308
RAW = 0


class RfbClient:
    """Just enough of an RFB client: a handshake, full updates in raw pixels, and a resize."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._data = b""
        self.size = (0, 0)
        self.pixels = 0

    async def _read(self, size: int) -> bytes:
        async with asyncio.timeout(10):
            while len(self._data) < size:
                piece = await self._socket.recv()
                assert isinstance(piece, bytes)
                self._data += piece
        data, self._data = self._data[:size], self._data[size:]
        return data

    async def connect(self) -> None:
        assert await self._read(12) == b"RFB 003.008\n"
        await self._socket.send(b"RFB 003.008\n")
        count = (await self._read(1))[0]
        assert 1 in await self._read(count)
        await self._socket.send(b"\x01")
        assert await self._read(4) == bytes(4)
        await self._socket.send(b"\x01")
        width, height, *_ = struct.unpack(">HH16sI", await self._read(24))
        name_length = _[-1]
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
                await self._read(4 * width * height)
                self.pixels += width * height


@pytest_asyncio.fixture
async def desktop_proxy(proxy: Proxy, agent: ScriptedAgent, xvnc: Path) -> Proxy:
    agent.target = str(xvnc)
    return proxy


async def test_pixels_come_through(desktop_proxy: Proxy) -> None:
    async with desktop_proxy.view(max_size=None) as socket:
        viewer = RfbClient(socket)
        await viewer.connect()
        assert viewer.size == (320, 200)
        await viewer.see_all()
        assert viewer.pixels >= 320 * 200


async def test_two_viewers_share_a_desktop_and_the_guest_cannot_touch_it(
    desktop_proxy: Proxy,
) -> None:
    async with (
        desktop_proxy.view(max_size=None) as first,
        desktop_proxy.view(role=ViewerRole.VIEW, max_size=None) as second,
    ):
        owner, guest = RfbClient(first), RfbClient(second)
        await owner.connect()
        await guest.connect()
        for viewer in (owner, guest):
            await viewer.see_all()
        # What the guest asks for never arrives; its next request for pixels does.
        await guest.resize(100, 100)
        await guest.ask()
        await guest.update()
        assert guest.size == (320, 200)
        await owner.resize(400, 240)
        for viewer in (owner, guest):
            while viewer.size != (400, 240):
                await viewer.ask(incremental=True)
                await viewer.update()


async def test_reloading_the_page_is_a_new_stream_to_the_same_desktop(desktop_proxy: Proxy) -> None:
    for _ in range(3):
        async with desktop_proxy.view(max_size=None) as socket:
            viewer = RfbClient(socket)
            await viewer.connect()
            await viewer.ask()
            await viewer.update()
    await eventually(lambda: len(desktop_proxy.running.relay.streams) == 0)
