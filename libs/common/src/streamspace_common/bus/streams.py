"""What operators do with whole streams: look how they are, copy them, put a copy back."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from streamspace_common.bus import inspection, snapshots
from streamspace_common.bus.connection import Bus
from streamspace_common.bus.inspection import ConsumerLag, StreamState
from streamspace_common.bus.snapshots import StreamCopy
from streamspace_common.bus.tail import StreamMessage


class Streams:
    """Streams by name. Reading makes no consumer: it takes no right but to read.

    Every method raises `ApiError` (with `is_missing`) where there is no such stream,
    `PermissionDeniedError` where the credentials do not allow it, and
    `BusUnavailableError` where the server does not answer.
    """

    def __init__(self, bus: Bus) -> None:
        self._link = bus.link

    async def state(self, stream: str) -> StreamState:
        """How much it holds."""
        return await inspection.stream_state(self._link, stream)

    async def consumers(self, stream: str) -> dict[str, ConsumerLag]:
        """How far each of its consumers is, by name."""
        return await inspection.consumers(self._link, stream)

    async def first_from(self, stream: str, subject: str, sequence: int) -> StreamMessage | None:
        """The first message from `sequence` on whose subject matches."""
        return await inspection.next_of(self._link, stream, subject, sequence)

    async def first_since(
        self, stream: str, subject: str, moment: datetime
    ) -> StreamMessage | None:
        """The first message stored at `moment` or later whose subject matches."""
        return await inspection.first_since(self._link, stream, subject, moment)

    async def copy(self, stream: str, write: Callable[[bytes], object]) -> StreamCopy:
        """Hand all of it to `write`, chunk after chunk; consumers and sequences included."""
        return await snapshots.snapshot(self._link, stream, write)

    async def restore(self, copy: StreamCopy, chunks: Iterable[bytes]) -> Mapping[str, Any]:
        """Make it anew from a copy, where there is none of that name; returns its state."""
        return await snapshots.restore(self._link, copy, chunks)

    async def delete(self, stream: str) -> None:
        """Remove it with everything in it; one that is not there is no error."""
        await snapshots.delete(self._link, stream)
