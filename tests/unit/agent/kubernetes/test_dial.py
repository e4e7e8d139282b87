"""A forwarded port is a leg like any other."""

import asyncio
from collections import deque
from typing import Any

import pytest

from streamspace_agent.runtimes.kubernetes import dial
from streamspace_agent.runtimes.kubernetes.dial import PodRefusedError, PortForward
from streamspace_common.testing.waiting import eventually

PORT = (5900).to_bytes(2, "little")
GREETINGS = [b"\0" + PORT, b"\1" + PORT]
BANNER = b"RFB 003.008\n"


class ScriptedChannel:
    """The kubelet's end of a WebSocket; after its script it waits until it is closed."""

    def __init__(self, *messages: bytes, ends: bool = False) -> None:
        self.messages = deque([*GREETINGS, *messages])
        self.ends = ends
        self.sent = bytearray()
        self.taking = asyncio.Event()
        self.taking.set()
        self.closed = asyncio.Event()

    async def receive_bytes(self) -> bytes:
        if self.messages:
            await asyncio.sleep(0)
            return self.messages.popleft()
        if not self.ends:
            await self.closed.wait()
        raise ConnectionResetError("closed")

    async def send_bytes(self, data: bytes) -> None:
        await self.taking.wait()
        assert data[:1] == b"\0"
        self.sent += data[1:]

    async def close(self) -> None:
        self.closed.set()


async def connect(channel: ScriptedChannel, *, speaks_first: bool = True) -> Any:
    return await PortForward(channel, (OSError,)).connect(
        server_speaks_first=speaks_first, timeout=2
    )


async def end(leg: Any, channel: ScriptedChannel) -> None:
    leg.abort()
    await dial.wait_carried()
    assert channel.closed.is_set()


async def test_bytes_go_both_ways_without_the_channels_numbers() -> None:
    channel = ScriptedChannel(b"\0" + BANNER, b"\0more")
    leg = await connect(channel)
    received = bytearray()
    leg.attach(leg, lambda pieces: received.extend(b"".join(pieces)))
    leg.write(b"hello")
    await eventually(lambda: received == BANNER + b"more")
    await eventually(lambda: channel.sent == b"hello")
    await end(leg, channel)


async def test_a_port_nobody_listens_on_is_refused_in_the_kubelets_words() -> None:
    channel = ScriptedChannel(b"\1error forwarding port 5900: connection refused")
    with pytest.raises(PodRefusedError, match="connection refused"):
        await connect(channel)
    await dial.wait_carried()
    assert channel.closed.is_set()


async def test_a_server_that_waits_for_its_client_is_connected_to_all_the_same() -> None:
    channel = ScriptedChannel()
    leg = await connect(channel, speaks_first=False)
    leg.write(b"GET / HTTP/1.1\r\n")
    await eventually(lambda: channel.sent.startswith(b"GET"))
    await end(leg, channel)


async def test_the_end_of_the_channel_is_the_end_of_the_leg() -> None:
    channel = ScriptedChannel(b"\0" + BANNER, ends=True)
    leg = await connect(channel)
    received = bytearray()
    leg.attach(leg, lambda pieces: received.extend(b"".join(pieces)))
    await eventually(lambda: leg.ending is not None)
    assert received == BANNER
    await dial.wait_carried()


async def test_a_channel_that_takes_nothing_holds_back_who_writes() -> None:
    channel = ScriptedChannel(b"\0" + BANNER)
    channel.taking.clear()
    leg = await connect(channel)
    piece, size = bytes(64 * 1024), 8 * 1024 * 1024
    for _ in range(size // len(piece)):
        leg.write(piece)
    await asyncio.sleep(0)
    assert leg.unsent > size // 2
    channel.taking.set()
    await eventually(lambda: len(channel.sent) == size)
    await end(leg, channel)


async def test_a_desktop_is_greeted_until_it_trusts_its_client() -> None:
    channel = ScriptedChannel(b"\0" + BANNER, b"\0\x01\x01", b"\0\0\0\0\0")
    assert await dial.greet(await connect(channel), 2)
    await dial.wait_carried()
    assert bytes(channel.sent).startswith(BANNER)


async def test_what_does_not_speak_rfb_is_no_desktop() -> None:
    channel = ScriptedChannel(b"\0HTTP/1.1 400 Bad Request\r\n")
    assert not await dial.greet(await connect(channel), 2)
    await dial.wait_carried()
