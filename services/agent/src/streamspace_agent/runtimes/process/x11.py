"""A few words of the X protocol: enough to know when a desktop is there, and to paint it.

The launcher has to know when the window manager runs and when a window is on the
screen; asking with programs such as `xprop` costs more than starting the desktop does.
This speaks the core protocol (X11R6, version 11.0) for exactly that: atoms, properties,
events of the root window, and a picture for its background.
"""

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from streamspace_agent.runtimes.process import xauthority

_EVENT_MAP_NOTIFY = 19
_EVENT_PROPERTY_NOTIFY = 28
_REPLY = 1
_ERROR = 0
_GENERIC_EVENT = 35
_SUBSTRUCTURE_NOTIFY = 1 << 19
_PROPERTY_CHANGE = 1 << 22
_CW_BACK_PIXMAP = 1 << 0
_CW_EVENT_MASK = 1 << 11
_RETAIN_PERMANENT = 1


class DisplayError(Exception):
    """The X server refused us, or is gone."""


class Display:
    """One connection to a local X server; use it as a context."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._next_id = 0
        self._atoms: dict[str, int] = {}
        self.root = 0
        self.depth = 0
        self.mapped = 0
        """Windows that appeared on the root window since `watch_root`, menus left out."""

    @classmethod
    async def open(cls, number: int, cookie: bytes) -> Self:
        """Connect to display `:number`.

        Raises:
            DisplayError: there is none, or it does not let us in.
        """
        path = Path(f"/tmp/.X11-unix/X{number}")  # noqa: S108 - where X servers listen
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            raise DisplayError(f"display :{number} does not answer: {error}") from error
        display = cls(reader, writer)
        try:
            await display._greet(cookie)
        except BaseException:
            writer.close()
            raise
        return display

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    async def _greet(self, cookie: bytes) -> None:
        name = xauthority.NAME
        self._writer.write(
            struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(cookie))
            + _padded(name)
            + _padded(cookie)
        )
        accepted, reason_length, length = struct.unpack("<BBxxxxH", await self._read(8))
        body = await self._read(length * 4)
        if accepted != 1:
            reason = body[:reason_length].decode(errors="replace")
            raise DisplayError(f"the X server refused us: {reason}")
        self._next_id = struct.unpack_from("<I", body, 4)[0]
        vendor_length, formats = struct.unpack_from("<H2xxB", body, 16)
        screen = 32 + _round_up(vendor_length) + 8 * formats
        self.root = struct.unpack_from("<I", body, screen)[0]
        self.depth = body[screen + 38]

    async def watch_root(self) -> None:
        """Hear of windows that appear and of properties of the root window from now on."""
        mask = _SUBSTRUCTURE_NOTIFY | _PROPERTY_CHANGE
        self._send(2, 0, struct.pack("<III", self.root, _CW_EVENT_MASK, mask))

    async def root_property(self, name: str) -> list[int]:
        """The numbers in a property of the root window, empty while it is not set."""
        atom = await self._atom(name)
        reply = await self._ask(20, 0, struct.pack("<IIIII", self.root, atom, 0, 0, 4096))
        (count,) = struct.unpack_from("<I", reply, 16)
        return list(struct.unpack_from(f"<{count}I", reply, 32)) if reply[1] == 32 else []

    async def wait_root_property(
        self, name: str, is_enough: Callable[[list[int]], bool]
    ) -> list[int]:
        """Wait until a property of the root window satisfies `is_enough`; see `watch_root`."""
        while True:
            value = await self.root_property(name)
            if is_enough(value):
                return value
            await self._next_event(_EVENT_PROPERTY_NOTIFY)

    async def wait_mapped(self) -> None:
        """Wait until a window has appeared; for displays without a window manager."""
        while self.mapped == 0:
            await self._next_event(_EVENT_MAP_NOTIFY)

    async def paint_root(self, width: int, height: int, pixels: bytes) -> None:
        """Tile the root window with a picture (32 bits a pixel), for good."""
        pixmap, context = self._new_id(), self._new_id()
        self._send(53, self.depth, struct.pack("<IIHH", pixmap, self.root, width, height))
        self._send(55, 0, struct.pack("<III", context, pixmap, 0))
        where = struct.pack("<IIHHhhBBxx", pixmap, context, width, height, 0, 0, 0, self.depth)
        self._send(72, 2, where + pixels)
        self._send(2, 0, struct.pack("<III", self.root, _CW_BACK_PIXMAP, pixmap))
        self._send(61, 0, struct.pack("<IhhHH", self.root, 0, 0, 0, 0))
        # The picture outlives this connection.
        self._send(112, _RETAIN_PERMANENT, b"")
        await self._atom("WM_NAME")

    async def _atom(self, name: str) -> int:
        if name not in self._atoms:
            raw = name.encode()
            reply = await self._ask(16, 0, struct.pack("<Hxx", len(raw)) + _padded(raw))
            self._atoms[name] = struct.unpack_from("<I", reply, 8)[0]
        return self._atoms[name]

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _send(self, opcode: int, detail: int, body: bytes) -> None:
        data = _padded(body)
        self._writer.write(struct.pack("<BBH", opcode, detail, 1 + len(data) // 4) + data)

    async def _ask(self, opcode: int, detail: int, body: bytes) -> bytes:
        self._send(opcode, detail, body)
        while True:
            kind, message = await self._message()
            if kind == _REPLY:
                return message

    async def _next_event(self, kind: int) -> None:
        while (await self._message())[0] != kind:
            pass

    async def _message(self) -> tuple[int, bytes]:
        message = await self._read(32)
        kind = message[0] & 0x7F
        if kind == _ERROR:
            raise DisplayError(f"the X server answered with error {message[1]}")
        if kind in (_REPLY, _GENERIC_EVENT):
            (extra,) = struct.unpack_from("<I", message, 4)
            message += await self._read(extra * 4)
        elif kind == _EVENT_MAP_NOTIFY and not message[12]:
            self.mapped += 1
        return kind, message

    async def _read(self, size: int) -> bytes:
        try:
            await self._writer.drain()
            return await self._reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise DisplayError("the X server closed the connection") from error


def _round_up(length: int) -> int:
    return (length + 3) & ~3


def _padded(data: bytes) -> bytes:
    return data + bytes(_round_up(len(data)) - len(data))
