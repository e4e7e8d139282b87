"""Live events for browsers: one reader of the stream, many followers.

Each gateway reads `EVENTS` once, in order, and keeps
the newest in memory. A follower that resumes is served from memory when its
position is there, else from the stream itself up to where memory takes over. So
nobody misses an event, also across restarts of the gateway, and a thousand browsers
cost one consumer.

A follower is registered before it catches up: what arrives meanwhile waits in its
queue, and the join is by sequence.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from prometheus_client import Gauge

from streamspace_common.bus import ApiError, Bus, StartAt, StreamMessage
from streamspace_common.contracts.headers import TRACE_PARENT
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.runtime.logging import get_logger
from streamspace_gateway.feed_event import FeedEvent
from streamspace_gateway.ports import FeedOverflowError

FILTERS = ("evt.>",)
# Everything, so that sequences are contiguous and a catch-up knows where it ends.
QUEUE_LENGTH = 2_000
KEEP_ALIVE_SECONDS = 15.0

FOLLOWERS = Gauge("streamspace_event_followers", "Browsers and tools that follow live events.")

_END = None
_PAUSE = 1.0

log = get_logger(__name__)


class EventFeed:
    """The stream's reader and its followers; `run` it before following."""

    def __init__(self, bus: Bus, *, memory: int) -> None:
        self._bus = bus
        self._recent: deque[FeedEvent] = deque(maxlen=memory)
        self._followers: set[asyncio.Queue[FeedEvent | None]] = set()
        self._position = 0
        self._ready = asyncio.Event()
        self._closed = False

    @property
    def position(self) -> int:
        return self._position

    @property
    def ready(self) -> bool:
        """True once the feed knows its place in the stream."""
        return self._ready.is_set()

    async def run(self) -> None:
        """Read the stream for ever; a restart of the reader goes on where it was."""
        if not self._ready.is_set():
            self._position = await self._newest()
            self._ready.set()
        start = StartAt.sequence(self._position + 1)
        async with aclosing(self._bus.tail(EVENTS.name, FILTERS, start=start)) as messages:
            async for message in messages:
                self._take(_event(message))

    async def _newest(self) -> int:
        """The stream's newest sequence, once the session service has made the stream."""
        while True:
            try:
                return await self._bus.last_sequence(EVENTS.name)
            except ApiError as error:
                if not error.is_missing:
                    raise
                log.info("waiting for the session service", stream=EVENTS.name)
                await asyncio.sleep(_PAUSE)

    def close(self) -> None:
        """End every follower; for the drain, where open responses would hold the server."""
        self._closed = True
        for queue in self._followers:
            _offer(queue, _END)

    def _take(self, event: FeedEvent) -> None:
        self._position = event.sequence
        self._recent.append(event)
        for queue in self._followers:
            _offer(queue, event)

    async def follow(
        self, wanted: Callable[[FeedEvent], bool], *, after: int
    ) -> AsyncGenerator[FeedEvent | None]:
        """See `ports.Feed.follow`."""
        await self._ready.wait()
        queue: asyncio.Queue[FeedEvent | None] = asyncio.Queue(QUEUE_LENGTH)
        self._followers.add(queue)
        FOLLOWERS.inc()
        try:
            joined_at = self._position
            async with aclosing(self._missed(after, joined_at)) as missed:
                async for event in missed:
                    if wanted(event):
                        yield event
            while not self._closed:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                        live = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                if live is _END:
                    if self._closed:
                        return
                    raise FeedOverflowError
                if live.sequence > max(joined_at, after) and wanted(live):
                    yield live
        finally:
            self._followers.discard(queue)
            FOLLOWERS.dec()

    async def _missed(self, after: int, until: int) -> AsyncGenerator[FeedEvent]:
        """What is stored in (`after`, `until`]."""
        if after >= until:
            return
        if self._recent and self._recent[0].sequence <= after + 1:
            for event in list(self._recent):
                if after < event.sequence <= until:
                    yield event
            return
        start = StartAt.sequence(after + 1)
        async with aclosing(self._bus.tail(EVENTS.name, FILTERS, start=start)) as messages:
            async for message in messages:
                if message.sequence > until:
                    return
                yield _event(message)
                if message.sequence == until:
                    return


def _event(message: StreamMessage) -> FeedEvent:
    return FeedEvent(
        message.sequence,
        message.subject,
        message.type,
        message.payload,
        message.headers.get(TRACE_PARENT),
    )


def _offer(queue: asyncio.Queue[FeedEvent | None], event: FeedEvent | None) -> None:
    """Hand over, or mark the follower as too slow; one slow browser never holds the feed."""
    try:
        queue.put_nowait(event)
    except asyncio.QueueFull:
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(_END)
