"""Ways to a session's port: straight to its pod, or through the API server.

Within the cluster the pod's address is dialled. From outside, one WebSocket to the API
server carries one port (`v4.channel.k8s.io`): each message begins with the number of a
channel, 0 for data and 1 for errors, and the first message of each channel only repeats
the port. That stream is joined to one end of a socket pair whose other end is the leg:
the sockets' buffers then bring about backpressure, both ways.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Final, Protocol

import aiofastnet

from streamspace_agent.ports import SessionUnreachable
from streamspace_common.relay.pump import Leg
from streamspace_common.relay.stream import StreamLeg, connect_stream

_DATA, _ERRORS = b"\0", b"\1"
_PIECE: Final = 64 * 1024
_REFUSAL_GRACE: Final = 0.15
"""Seconds for the kubelet to say that nobody listens; where a server speaks first it is not
waited out."""
_FLUSH_GRACE: Final = 1.0
_BANNER_LENGTH: Final = 12
_TELLS_RESULT: Final = b"RFB 003.008"
_NONE: Final = 1
"""The security type that asks for nothing."""


class Channel(Protocol):
    """A WebSocket of binary messages."""

    async def receive_bytes(self) -> bytes:
        """The next message; raises any exception at the end."""

    async def send_bytes(self, data: bytes) -> None: ...

    async def close(self) -> object: ...


class PodRefusedError(Exception):
    """The pod's end of a port-forward said why not."""


class PortForward:
    """One forwarded port.

    Args:
        channel: an open WebSocket to the `portforward` of a pod.
        lost: what `channel` raises when it is gone, and sockets (`OSError`).
    """

    def __init__(self, channel: Channel, lost: tuple[type[Exception], ...]) -> None:
        self._channel = channel
        self._lost = lost
        self._heard = asyncio.Event()
        """Set with the first data, or the end."""
        self._spoken = False
        self._refusal: str | None = None

    async def connect(self, *, server_speaks_first: bool, timeout: float) -> StreamLeg:
        """The leg, once it is known that somebody listens.

        Raises:
            PodRefusedError: nobody does.
        """
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        carrying = asyncio.create_task(self._carry(far), name="port-forward")
        _carried.add(carrying)
        carrying.add_done_callback(_carried.discard)
        _, leg = await aiofastnet.create_unix_connection(
            asyncio.get_running_loop(), StreamLeg, sock=near
        )
        try:
            await self._somebody_listens(timeout if server_speaks_first else _REFUSAL_GRACE)
            self._check(must_have_spoken=server_speaks_first)
        except BaseException:
            leg.abort()
            raise
        return leg

    async def _somebody_listens(self, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._heard.wait()

    def _check(self, *, must_have_spoken: bool) -> None:
        if self._refusal is not None and not self._spoken:
            raise PodRefusedError(self._refusal)
        if must_have_spoken and not self._heard.is_set():
            raise PodRefusedError("nothing was heard from it in time")

    async def _carry(self, far: socket.socket) -> None:
        """Both ways, until either end is gone."""
        ways = [
            asyncio.create_task(self._inward(far), name="port-forward in"),
            asyncio.create_task(self._outward(far), name="port-forward out"),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            # What has come already still goes to the leg: sending it is not interrupted.
            await asyncio.wait(ways, timeout=_FLUSH_GRACE)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far.close()
            with contextlib.suppress(*self._lost):
                await self._channel.close()

    async def _inward(self, far: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        greetings = 2
        try:
            while True:
                message = await self._channel.receive_bytes()
                if greetings:
                    # The first message of either channel: its number and the port.
                    greetings -= 1
                elif message[:1] == _ERRORS:
                    self._refusal = message[1:].decode(errors="replace").strip()
                    return
                else:
                    self._spoken = True
                    self._heard.set()
                    await loop.sock_sendall(far, memoryview(message)[1:])
        except self._lost as error:
            self._refusal = f"the connection ended ({type(error).__name__})"
        finally:
            self._heard.set()
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_WR)

    async def _outward(self, far: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(*self._lost):
            while data := await loop.sock_recv(far, _PIECE):
                await self._channel.send_bytes(_DATA + data)


_carried: set[asyncio.Task[None]] = set()
"""The event loop itself holds tasks only weakly."""


async def wait_carried() -> None:
    """Until every forwarded port whose leg is gone has been let go of."""
    if _carried:
        await asyncio.wait(set(_carried), timeout=3.0)


async def connect_pod(address: str, port: int, *, timeout: float) -> Leg:
    """Straight to the pod.

    Raises:
        SessionUnreachable: nobody answers.
    """
    try:
        return await connect_stream((address, port), timeout=timeout)
    except OSError as error:
        raise SessionUnreachable(f"The session does not answer: {error}.") from error


async def greet(leg: Leg, timeout: float) -> bool:
    """Whether a desktop answers on a fresh leg, which is closed.

    It goes as far as an RFB server takes to believe that nobody guesses passwords:
    servers count connections that end before, and lock their address out.
    """
    async with _reading(leg) as read:
        try:
            async with asyncio.timeout(timeout):
                banner = await read(_BANNER_LENGTH)
                if not banner.startswith(b"RFB "):
                    return False
                with contextlib.suppress(EOFError):
                    await _be_trusted(leg, read, banner)
        except (TimeoutError, EOFError):
            return False
    return True


async def _be_trusted(leg: Leg, read: "_Reader", banner: bytes) -> None:
    leg.write(banner)
    count = (await read(1))[0]
    if count and _NONE in await read(count):
        leg.write(bytes([_NONE]))
        if banner >= _TELLS_RESULT:
            await read(4)


@contextlib.asynccontextmanager
async def _reading(leg: Leg) -> AsyncIterator["_Reader"]:
    reader = _Reader()
    leg.on_ended = lambda _ending: reader.end()
    if leg.ending is not None:
        reader.end()
    leg.attach(leg, lambda pieces: reader.feed(b"".join(pieces)))
    try:
        yield reader
    finally:
        leg.abort()
        await reader.ended.wait()


class _Reader:
    """So many bytes of a leg, as they come."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._news = asyncio.Event()
        self.ended = asyncio.Event()

    def feed(self, data: bytes) -> None:
        self._received += data
        self._news.set()

    def end(self) -> None:
        self.ended.set()
        self._news.set()

    async def __call__(self, size: int) -> bytes:
        while len(self._received) < size:
            if self.ended.is_set():
                raise EOFError
            self._news.clear()
            await self._news.wait()
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken
