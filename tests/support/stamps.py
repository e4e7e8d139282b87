"""Desktops that number their pictures, and viewers that notice when one is missing.

`StampingDesktops` plays the session's end of every null session (`null_stream`): an RFB
server that sends each viewer one small framebuffer update after another, whose pixels hold
the session's running number. The number goes on while nobody looks, so the first picture
after a reconnect says how many were missed. `Viewer` checks that numbers follow each other,
answers each with a pointer event that carries the number back, and the desktop checks those:
both directions are numbered, byte for byte.

A viewer whose stream ends comes back as the web client does (see `RETRY_PAUSES`).
"""

import asyncio
import itertools
import random
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import websockets

BANNER = b"RFB 003.008\n"
PERIOD = 0.1
"""Seconds between two pictures."""
RETRY_PAUSES = (0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds: `PAUSES` of services/web/src/viewer/reconnect.ts, with its jitter of a quarter."""
STOPPING = range(4400, 4412)
"""Close codes after which the web client does not try again."""

_MAGIC = b"SEQ!"
_HEAD = struct.Struct(">BxHHHHHi")
_PIXELS = struct.Struct(">4sIQQQ")
_WIDTH = _PIXELS.size // 4
_POINTER = struct.Struct(">BBHH")
_MESSAGE_SIZES = {0: 20, 3: 10, 4: 8, 5: 6}
"""Of an RFB client's messages, by type; SetEncodings (2) says its own."""


class StampingDesktops:
    """Listens at `port` and is every session's desktop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._viewers: dict[asyncio.StreamWriter, _Watched] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self.number = 0
        """Of the newest picture; all sessions count together."""
        self.faults: list[str] = []
        """What was wrong with what viewers sent."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        assert self._ticker is not None
        self._server.close()
        self._ticker.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(self._ticker, *self._tasks, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            self.number += 1
            for writer, watched in tuple(self._viewers.items()):
                writer.write(_picture(watched, self.number))
            await asyncio.sleep(PERIOD)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            session = (await reader.readline()).decode().strip()
            watched = await _greet(reader, writer, session, next(self._numbers))
            self._viewers[writer] = watched
            await self._listen(reader, watched)
        except (asyncio.IncompleteReadError, OSError):
            pass  # The viewer, or something between us, has gone.
        finally:
            self._viewers.pop(writer, None)
            writer.close()

    async def _listen(self, reader: asyncio.StreamReader, watched: "_Watched") -> None:
        while True:
            kind = (await reader.readexactly(1))[0]
            if kind == 2:
                (count,) = struct.unpack(">xH", await reader.readexactly(3))
                await reader.readexactly(4 * count)
                continue
            if kind not in _MESSAGE_SIZES:
                self.faults.append(f"{watched.session}: message of type {kind}")
                return
            rest = await reader.readexactly(_MESSAGE_SIZES[kind] - 1)
            if kind == 5:
                self._check(watched, *struct.unpack(">HH", rest[1:]))

    def _check(self, watched: "_Watched", high: int, low: int) -> None:
        number = high << 16 | low
        if watched.heard and number != watched.heard + 1:
            self.faults.append(f"{watched.session}: heard {number} after {watched.heard}")
        watched.heard = number


@dataclass
class _Watched:
    session: str
    connection: int
    heard: int = 0


async def _greet(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: str, connection: int
) -> _Watched:
    writer.write(BANNER)
    await reader.readexactly(len(BANNER))
    writer.write(b"\x01\x01")
    await reader.readexactly(1)
    writer.write(bytes(4))
    await reader.readexactly(1)
    pixel_format = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
    name = session.encode()
    writer.write(struct.pack(">HH16sI", _WIDTH, 1, pixel_format, len(name)) + name)
    return _Watched(session, connection)


def _picture(watched: _Watched, number: int) -> bytes:
    pixels = _PIXELS.pack(_MAGIC, watched.connection, number, watched.heard, time.monotonic_ns())
    return _HEAD.pack(0, 1, 0, 0, _WIDTH, 1, 0) + pixels


@dataclass(frozen=True)
class Gap:
    """One interruption: what ended the stream, and what it cost."""

    code: int
    reason: str
    attempts: int
    missed: int
    """Pictures."""
    seconds: float
    """Between the last picture before it and the first one after."""
    failed: tuple[str, ...] = ()
    """What each try before the last came to."""


class Interrupted(Exception):  # noqa: N818 - what a try came to, no error of ours
    """The stream ended, or did not begin."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


Ticket = Callable[[], Awaitable[dict[str, Any]]]
"""Asks the gateway for a ticket; raises `Interrupted` where it gives none."""


@dataclass
class Viewer:
    """One person watching one session for as long as `run` runs."""

    session: str
    ticket: Ticket
    pictures: int = 0
    last: int = 0
    """Number of the newest picture."""
    gaps: list[Gap] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _seen_at: float = 0.0
    _interrupted: list[Interrupted] = field(default_factory=list)

    async def run(self) -> None:
        """Watch; ends only by cancellation, or with what the web client would stop for."""
        while True:
            try:
                await self._watch()
            except Interrupted as interrupted:
                self._interrupted.append(interrupted)
                if interrupted.code in STOPPING:
                    self.faults.append(f"{self.session}: stopped by {interrupted}")
                    return
            pause = RETRY_PAUSES[min(len(self._interrupted), len(RETRY_PAUSES)) - 1]
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))

    async def _watch(self) -> None:
        ticket = await self.ticket()
        try:
            async with websockets.connect(
                ticket["url"], subprotocols=ticket["protocols"], compression=None, proxy=None
            ) as socket:
                await self._read(_Stream(socket))
        except websockets.ConnectionClosed as closed:
            told = closed.rcvd
            raise Interrupted(told.code if told else 1006, told.reason if told else "") from closed
        except (OSError, TimeoutError, websockets.InvalidHandshake) as error:
            raise Interrupted(1006, str(error)) from error

    async def _read(self, stream: "_Stream") -> None:
        await stream.expect(BANNER)
        await stream.send(BANNER)
        await stream.expect(b"\x01\x01")
        await stream.send(b"\x01")
        await stream.expect(bytes(4))
        await stream.send(b"\x01")
        _, _, _, size = struct.unpack(">HH16sI", await stream.read(24))
        name = (await stream.read(size)).decode()
        if name != self.session:
            self.faults.append(f"{self.session}: this is the desktop of {name}")
        connection, sent = None, 0
        while True:
            head = _HEAD.unpack(await stream.read(_HEAD.size))
            magic, told, number, heard, _ = _PIXELS.unpack(await stream.read(_PIXELS.size))
            if head[:2] != (0, 1) or magic != _MAGIC:
                self.faults.append(f"{self.session}: not a picture: {head} {magic!r}")
                return
            if connection is None:
                connection = told
                self._back(number)
            elif number != self.last + 1 or told != connection or heard > sent:
                self.faults.append(f"{self.session}: {number} after {self.last}, heard {heard}")
            self.last, self._seen_at, sent = number, time.monotonic(), number
            self.pictures += 1
            await stream.send(_POINTER.pack(5, 0, number >> 16 & 0xFFFF, number & 0xFFFF))

    def _back(self, number: int) -> None:
        interrupted, self._interrupted = self._interrupted, []
        if self.last == 0:
            return
        if not interrupted:
            self.faults.append(f"{self.session}: connected twice")
            return
        self.gaps.append(
            Gap(
                code=interrupted[0].code,
                reason=interrupted[0].reason,
                attempts=len(interrupted),
                missed=number - self.last - 1,
                seconds=time.monotonic() - self._seen_at,
                failed=tuple(str(each) for each in interrupted[1:]),
            )
        )


class _Stream:
    """A WebSocket's messages as a stream of bytes."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._data = b""

    async def send(self, data: bytes) -> None:
        await self._socket.send(data)

    async def expect(self, data: bytes) -> None:
        found = await self.read(len(data))
        if found != data:
            raise Interrupted(0, f"{found!r} in place of {data!r}")

    async def read(self, size: int) -> bytes:
        while len(self._data) < size:
            piece = await self._socket.recv()
            assert isinstance(piece, bytes)
            self._data += piece
        data, self._data = self._data[:size], self._data[size:]
        return data
