"""What a viewer says to an RFB server, read message by message.

The relay never understands pixels; it reads the small direction only, from client to
server, for two purposes: to know when somebody really typed or clicked (idle time), and
to let a `view` viewer see without touching. It is a stream parser without I/O: `feed`
takes pieces cut anywhere and returns what may go on to the server.

For the `control` role the bytes pass as they are. For the `view` role only whole messages
of an allow-list pass, so that whatever a viewer sends, the server sees a stream of
harmless messages: a message the two of us might measure differently is never forwarded.
A type this module does not know ends the stream (`failure`), because its length is
unknown and anything could hide behind it.

Lengths: RFC 6143 section 7.5 and the community protocol page for the extensions.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

Buffer = bytes | bytearray | memoryview

SET_PIXEL_FORMAT: Final = 0
SET_ENCODINGS: Final = 2
UPDATE_REQUEST: Final = 3
KEY: Final = 4
POINTER: Final = 5
CUT_TEXT: Final = 6
CONTINUOUS_UPDATES: Final = 150
FENCE: Final = 248
XVP: Final = 250
SET_DESKTOP_SIZE: Final = 251
QEMU: Final = 255

_LENGTHS: Final = {
    SET_PIXEL_FORMAT: 20,
    UPDATE_REQUEST: 10,
    KEY: 8,
    POINTER: 6,
    CONTINUOUS_UPDATES: 10,
    XVP: 4,
}
"""Messages of one length; a pointer's may be one longer, see `_read_messages`."""
_HEADERS: Final = {
    SET_ENCODINGS: 4,
    CUT_TEXT: 8,
    FENCE: 9,
    SET_DESKTOP_SIZE: 8,
    QEMU: 2,
}
"""Bytes needed before the length of the others is known."""

_read_cut_length: Final = struct.Struct(">4xi").unpack_from
"""A clipboard's length, which is negative for the extended one. `_read_messages` asks."""

_MEASURES: Final[dict[int, Callable[[Buffer, int], int]]] = {
    SET_ENCODINGS: lambda data, at: 4 + 4 * int.from_bytes(data[at + 2 : at + 4]),
    FENCE: lambda data, at: 9 + data[at + 8],
    SET_DESKTOP_SIZE: lambda data, at: 8 + 16 * data[at + 6],
    # Its one known kind, the key with its scan code.
    QEMU: lambda _data, _at: 12,
}
"""How long the others are, but for a clipboard, once their header is there."""

FOR_VIEWERS: Final = frozenset(
    {SET_PIXEL_FORMAT, SET_ENCODINGS, UPDATE_REQUEST, CONTINUOUS_UPDATES, FENCE}
)
_INPUT: Final = frozenset({KEY, CUT_TEXT, XVP, QEMU})
_SKIPPABLE: Final = frozenset({CUT_TEXT, SET_DESKTOP_SIZE})
"""Their bodies are counted, not kept: nothing in them is read, or passes in `view`."""

MAX_ENCODINGS: Final = 1024
"""A client of today names about 30. More is an attack on our memory."""

EXTENDED_MOUSE_BUTTONS: Final = -316
_ENCODINGS_FOR_VIEWERS: Final = frozenset(
    {0, 1, 2, 4, 5, 6, 7, 8, 15, 16, 21, 50}  # pixels: Raw to Open H.264
    | {-260}  # TightPNG
    | set(range(-32, -22))  # JPEG quality
    | set(range(-256, -246))  # compression level
    | set(range(-512, -411))  # fine JPEG quality
    | set(range(-768, -762))  # JPEG subsampling
    | {-223, -224, -308}  # desktop size, last rectangle, extended desktop size
    | {-239, -240, -232, -314}  # cursors and where the pointer is
    | {-258, -261, -307}  # QEMU keys and lights, desktop name
    | {-312, -313, EXTENDED_MOUSE_BUTTONS}  # fence, continuous updates
    | {0x574D5664, 0x574D5665, 0x574D5668}  # VMware cursor, its place, lights
)
"""What a `view` viewer may ask for. Left out on purpose: the extended clipboard, xvp,
audio, general input, and whatever has yet to be invented."""

_VERSION = re.compile(rb"RFB (\d{3})\.(\d{3})\n")
_NO_SECURITY: Final = 1
_VNC_PASSWORD: Final = 2


@dataclass
class ClientMessages:
    """The client's half of one RFB connection.

    Attributes:
        view: only messages that change nothing in the session pass.
        inputs: real input seen so far: keys, clipboard, power buttons, and pointer
            events that differ from the one before. Requests for pixels and fences
            flow all the time and say nothing about a person.
        failure: why the stream cannot go on; nothing passes after it is set.
    """

    view: bool
    inputs: int = 0
    failure: str | None = None
    _rest: bytes = b""
    _skip: int = 0
    _step: str | None = "version"
    _needed: int = 12
    _pointer: bytes = b""
    _long_pointer: bool = False
    _passing: list[Buffer] = field(default_factory=list)

    def feed(self, data: Buffer) -> Buffer:
        """What of `data`, and of what was held back before, goes to the server now."""
        if self.failure:
            return b""
        if self._skip >= len(data):
            self._skip -= len(data)
            return b"" if self.view else data
        held = len(self._rest)
        if held:
            data, self._rest = self._rest + bytes(data), b""
        at = self._shake_hands(data) if self._step is not None else 0
        at = self._read_messages(data, at)
        if not self.view:
            # All of it, but for what was passed on last time; up to a failure.
            end = at if self.failure is not None else len(data)
            return data if not held and end == len(data) else memoryview(data)[held:end]
        passing, self._passing = self._passing, []
        if len(passing) == 1:
            return passing[0]
        return b"".join(passing)

    def _shake_hands(self, data: Buffer) -> int:
        """Read the steps before the first message; returns where they end."""
        at = 0
        while self._step is not None and len(data) - at >= self._needed:
            piece = bytes(data[at : at + self._needed])
            at += self._needed
            if self._step == "client-init" and self.view:
                # Never let a guest ask for the desktop alone: that cuts the others off.
                piece = b"\x01"
            self._next_step(piece)
            if self.failure is not None:
                return at - len(piece)
            if self.view:
                self._passing.append(piece)
        if self._step is not None:
            self._rest = bytes(data[at:])
        return at

    def _next_step(self, piece: bytes) -> None:
        match self._step:
            case "version":
                found = _VERSION.fullmatch(piece)
                if found is None:
                    self.failure = "The viewer does not speak RFB."
                # In 3.3 the server alone decides; the client sends no choice.
                elif (found[1], found[2]) < (b"003", b"007"):
                    self._expect("client-init", 1)
                else:
                    self._expect("security", 1)
            case "security" if piece[0] == _NO_SECURITY:
                self._expect("client-init", 1)
            case "security" if piece[0] == _VNC_PASSWORD:
                self._expect("password", 16)
            case "security":
                self.failure = f"The viewer chose RFB security type {piece[0]}, unknown here."
            case "password":
                self._expect("client-init", 1)
            case _:
                self._expect(None, 0)

    def _expect(self, step: str | None, needed: int) -> None:
        self._step, self._needed = step, needed

    def _read_messages(self, data: Buffer, at: int) -> int:  # noqa: C901, PLR0912 - the hot loop
        """Read whole messages from `at`; returns where reading stopped."""
        if self._step is not None or self.failure is not None:
            return at
        size = len(data)
        if self._skip:
            skipped = min(self._skip, size - at)
            self._skip -= skipped
            at += skipped
        view = self.view
        passing = self._passing
        first = at
        while at < size:
            kind = data[at]
            length = _LENGTHS.get(kind)
            if length is None and kind == CUT_TEXT and size - at >= _HEADERS[CUT_TEXT]:
                # All that a viewer can send much of, so without a call.
                length = 8 + abs(_read_cut_length(data, at)[0])
            elif length is None:
                length = self._measure(kind, data, at, size)
                if self.failure is not None:
                    break
            elif kind == POINTER and self._long_pointer and size - at > 1:
                length += data[at + 1] >> 7
            end = at + length
            if not length or end > size:
                if length and kind in _SKIPPABLE:
                    self._skip = end - size
                    self.inputs += kind == CUT_TEXT
                    if view and at > first:
                        passing.append(bytes(data[first:at]))
                    return size
                self._rest = bytes(data[at:])
                break
            if kind == POINTER:
                self._note_pointer(data, at, end)
            elif kind in _INPUT:
                self.inputs += 1
            if kind == SET_ENCODINGS or (view and kind not in FOR_VIEWERS):
                # A break in what passes as it is.
                if view and at > first:
                    passing.append(bytes(data[first:at]))
                first = end
                if kind == SET_ENCODINGS:
                    self._note_encodings(data, at, end)
            at = end
        if view and at > first:
            passing.append(bytes(data[first:at]))
        return at

    def _measure(self, kind: int, data: Buffer, at: int, size: int) -> int:
        """Length of a message of variable length; 0 while its header is incomplete."""
        header = _HEADERS.get(kind)
        if header is None:
            self.failure = f"The viewer sent RFB message type {kind}, unknown here."
            return 0
        if size - at < header:
            return 0
        length = _MEASURES[kind](data, at)
        if kind == SET_ENCODINGS and length > 4 + 4 * MAX_ENCODINGS:
            self.failure = f"The viewer named more than {MAX_ENCODINGS} encodings."
        elif kind == QEMU and data[at + 1] != 0:
            self.failure = f"The viewer sent QEMU message {data[at + 1]}, unknown here."
        return length

    def _note_pointer(self, data: Buffer, at: int, end: int) -> None:
        pointer = bytes(data[at + 1 : end])
        if pointer != self._pointer:
            self._pointer = pointer
            self.inputs += 1

    def _note_encodings(self, data: Buffer, at: int, end: int) -> None:
        named = [
            int.from_bytes(data[place : place + 4], signed=True) for place in range(at + 4, end, 4)
        ]
        # Only a client that has named the extension sends the seven-byte form.
        self._long_pointer = self._long_pointer or EXTENDED_MOUSE_BUTTONS in named
        if self.view:
            allowed = [each for each in named if each in _ENCODINGS_FOR_VIEWERS]
            self._passing.append(
                bytes((SET_ENCODINGS, 0))
                + len(allowed).to_bytes(2)
                + b"".join(each.to_bytes(4, signed=True) for each in allowed)
            )
