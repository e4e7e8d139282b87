"""A leg that is read by asking and written with waiting.

The pump hands every piece on in the call it was read in; a proxy that reads messages has
to stop and think. A conduit keeps what came meanwhile, bounded: past the limit its leg
stops reading, and who writes waits while the other end is slower.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from streamspace_common.relay.pump import Buffer, Ending, Leg, Pieces

_KEPT = 256 * 1024
"""Bytes kept before the leg stops reading."""
_LARGEST_PIECE = 512 * 1024
"""Bytes written in one piece: half of what a frame may have."""


class Conduit(Leg):
    """Puts itself where a leg's peer stands; `give_up` ends that, for a pump.

    Args:
        leg: the connection.
        on_gone: called once, when the connection is gone.
    """

    def __init__(self, leg: Leg, on_gone: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.leg = leg
        self.on_gone = on_gone
        self._pieces: deque[bytes] = deque()
        self._kept = 0
        self._held_back = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        leg.on_ended = self._on_leg_ended
        leg.attach(self, self._keep)

    @property
    def gone(self) -> bool:
        return self.leg.ending is not None

    @property
    def has_unread(self) -> bool:
        return bool(self._pieces)

    async def read(self) -> bytes:
        """The next piece; empty when the connection is gone and all was read."""
        while not self._pieces:
            if self.gone:
                return b""
            self._readable.clear()
            await self._readable.wait()
        piece = self._pieces.popleft()
        self._kept -= len(piece)
        if self._held_back and self._kept < _KEPT:
            self._held_back = False
            self.leg.resume_reading()
        return piece

    def write_all(self, pieces: Pieces) -> None:
        for piece in pieces:
            view = memoryview(piece)
            for at in range(0, len(view), _LARGEST_PIECE):
                self.leg.write(view[at : at + _LARGEST_PIECE])

    async def send(self, data: Buffer | None) -> None:
        """Write, then wait until the other end is ready for more."""
        if data:
            self.write(data)
        await self._writable.wait()

    def give_up(self, rest: bytes) -> list[bytes]:
        """What was not read, `rest` first; from now on somebody else reads."""
        unread = [rest, *self._pieces] if rest else list(self._pieces)
        self._pieces.clear()
        return unread

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.leg.close(code, reason)

    # As the leg's peer: its backpressure.

    def pause_reading(self) -> None:
        self._writable.clear()

    def resume_reading(self) -> None:
        self._writable.set()

    def _keep(self, pieces: Pieces) -> None:
        piece = b"".join(pieces)
        self._pieces.append(piece)
        self._kept += len(piece)
        self._readable.set()
        if self._kept >= _KEPT and not self._held_back:
            self._held_back = True
            self.leg.pause_reading()

    def _on_leg_ended(self, _ending: Ending) -> None:
        self._readable.set()
        self._writable.set()
        self.on_gone()
