"""Data frames of a WebSocket, read without holding a message together.

A relay has no use for whole messages: it sends on what has arrived of a frame, as a
frame of its own. So nothing is kept but the start of a header, and a read costs the
receiver at most one pass over its bytes, to unmask them.

That pass is why this exists beside picows, which unmasks with stores that go around the
cache: measured, a 64 KiB frame then costs two more trips to main memory than it need
(1 GB/s in place of 35). The agent's end masks with the key zero, which leaves bytes as
they are; RFC 6455 wants keys no page's script could foresee, and no script speaks here.
"""

import struct
from collections.abc import Callable
from typing import Final

from websockets.frames import apply_mask  # type: ignore[attr-defined]

Buffer = bytes | bytearray | memoryview

MAX_FRAME: Final = 1024 * 1024
"""Larger frames end the connection with 1009; senders cut far below it."""
LONGEST_REST: Final = 2 + 4 + 125
"""What `feed` may leave: all but the last byte of a control frame, at most."""

PROTOCOL_ERROR: Final = 1002
UNSUPPORTED: Final = 1003
TOO_BIG: Final = 1009

_CONTINUATION: Final = 0
_TEXT: Final = 1
_BINARY: Final = 2
_FINAL: Final = 0x80
_RESERVED_BITS: Final = 0x70
_FIRST_CONTROL: Final = 8
_MASKED: Final = 0x80
_NO_KEY: Final = bytes(4)
_WHOLE_BINARY: Final = _FINAL | _BINARY
_USUAL_HEAD: Final = 2 + 2 + 4
"""Bytes that hold the header of nearly every frame: with a length of two bytes and a key."""
_read_key = struct.Struct("4s").unpack_from


class FrameReader:
    """Takes a connection's bytes apart into payload and control frames.

    Args:
        masked: whether the other end has to mask (it is the client).
        on_payload: takes the pieces of payload that came together, valid during the
            call only.
        on_control: takes a whole control frame as it came.
        on_error: takes a close code and a reason; nothing is read afterwards.
    """

    def __init__(
        self,
        *,
        masked: bool,
        on_payload: Callable[[list[Buffer]], None],
        on_control: Callable[[bytes], None],
        on_error: Callable[[int, str], None],
    ) -> None:
        self._masked = masked
        self._mask_bit = _MASKED if masked else 0
        self._on_payload = on_payload
        self._on_control = on_control
        self._on_error = on_error
        self._left = 0
        self._key: bytes | None = None
        self._failed = False

    def feed(self, data: memoryview) -> int:  # noqa: C901 - the hot loop
        """Read on; returns how much was used. Give the rest again, with what follows."""
        size = len(data)
        at = size if self._failed else 0
        left, key = self._left, self._key
        masked, mask_bit = self._masked, self._mask_bit
        pieces: list[Buffer] = []
        # What nearly every frame needs is done here, without a call: at 16 KiB a frame
        # the calls cost as much as the unmasking.
        while at < size:
            if left > size - at:
                piece = data[at:]
                pieces.append(piece if key is None else apply_mask(piece, key))
                left -= size - at
                if key is not None and (shift := (size - at) & 3):
                    # What follows of this frame begins in the middle of the key.
                    key = key[shift:] + key[:shift]
                at = size
            elif left:
                end = at + left
                piece = data[at:end]
                pieces.append(piece if key is None else apply_mask(piece, key))
                at, left = end, 0
            elif (
                size - at >= _USUAL_HEAD
                and data[at] == _WHOLE_BINARY
                and (short := data[at + 1] ^ mask_bit) <= 126
            ):
                if short < 126:
                    left = short
                    at += 2
                else:
                    left = data[at + 2] << 8 | data[at + 3]
                    at += 4
                if masked:
                    (key,) = _read_key(data, at)
                    at += 4
                    if key == _NO_KEY:
                        key = None
            else:
                self._left = 0
                end = self._read_unusual(data, at, size, pieces)
                if end == at or self._failed:
                    break
                at = end
                left, key = self._left, self._key
        self._left, self._key = left, key
        if pieces:
            self._on_payload(pieces)
        return size if self._failed else at

    def _read_unusual(self, data: memoryview, at: int, size: int, pieces: list[Buffer]) -> int:
        """Read a control frame or another header; returns its end, or `at` if incomplete.

        What came before a control frame goes on before it is told.
        """
        if data[at] & 0x0F < _FIRST_CONTROL:
            return self._begin(data, at, size)
        end = self._end_of_control(data, at, size)
        if end > at:
            if pieces:
                self._on_payload(pieces)
                pieces.clear()
            self._on_control(bytes(data[at:end]))
        return end

    def _begin(self, data: memoryview, at: int, size: int) -> int:
        """Read a data frame's header; returns its end, or `at` for an incomplete one."""
        if size - at < 2:
            return at
        first, second = data[at], data[at + 1]
        if first != _WHOLE_BINARY or (second >= _MASKED) is not self._masked:
            self._check(first, second)
            if self._failed:
                return at
        short = second & 0x7F
        if short < 126:
            length, end = short, at + 2
        elif short == 126:
            length, end = int.from_bytes(data[at + 2 : at + 4]), at + 4
        else:
            length, end = int.from_bytes(data[at + 2 : at + 10]), at + 10
        if self._masked:
            end += 4
            if end > size:
                return at
            (key,) = _read_key(data, end - 4)
            self._key = None if key == _NO_KEY else key
        elif end > size:
            return at
        if length > MAX_FRAME:
            self._fail(TOO_BIG, f"Frames may have {MAX_FRAME} bytes.")
        self._left = length
        return end

    def _end_of_control(self, data: memoryview, at: int, size: int) -> int:
        """Where a control frame ends; `at` for an incomplete one."""
        if size - at < 2:
            return at
        self._check(data[at], data[at + 1])
        end = at + 2 + (4 if self._masked else 0) + (data[at + 1] & 0x7F)
        return end if end <= size and not self._failed else at

    def _check(self, first: int, second: int) -> None:
        """Fail unless a frame may begin with these two bytes."""
        kind = first & 0x0F
        if first & _RESERVED_BITS:
            self._fail(PROTOCOL_ERROR, "No extension was agreed on.")
        elif bool(second & _MASKED) is not self._masked:
            self._fail(PROTOCOL_ERROR, "Clients mask their frames, servers do not.")
        elif kind == _TEXT:
            self._fail(UNSUPPORTED, "Only binary messages are carried here.")
        elif kind >= _FIRST_CONTROL and (not first & _FINAL or second & 0x7F > 125):
            self._fail(PROTOCOL_ERROR, "Control frames are short and whole.")
        elif kind not in {_CONTINUATION, _BINARY, 8, 9, 10}:
            self._fail(PROTOCOL_ERROR, f"There is no frame type {kind}.")

    def _fail(self, code: int, reason: str) -> None:
        self._failed = True
        self._on_error(code, reason)


def header(size: int, *, masked: bool) -> bytes:
    """The header of a whole binary frame of `size` bytes; a mask is the key zero."""
    bit = _MASKED if masked else 0
    if size < 126:
        head = bytes((_FINAL | _BINARY, bit | size))
    elif size < 65536:
        head = bytes((_FINAL | _BINARY, bit | 126)) + size.to_bytes(2)
    else:
        head = bytes((_FINAL | _BINARY, bit | 127)) + size.to_bytes(8)
    return head + _NO_KEY if masked else head
