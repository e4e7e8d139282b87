"""Two legs and the pump that joins them.

A `Leg` is one connection that bytes come from and go to. It keeps what arrives before
it has a peer (bounded: past the limit it stops reading), and once joined hands every
piece to its peer in the same call it was read in: no queue, no task, no copy of our
own. Backpressure is TCP's: when a leg's write buffer passes its high-water mark, the
peer stops reading until it has drained, so a stalled reader costs the socket buffers
and little more. Measured, this is what websockify and callback relays lack.

How to use it:

    session = await connect_stream("/run/session.sock")           # or ("10.0.0.7", 5900)
    tunnel = await connect_websocket(url, {"Authorization": "Bearer ..."})
    pump = Pump(tunnel, session)                                   # early bytes flow now
    ending = await pump.wait_ended()

Write to a leg with `write`, never from another thread. What `write` and a sink are
given is only valid during the call: copy what you keep. WebSocket message borders are
not kept: this carries byte streams.

Only aiofastnet transports are used, under any event loop: uvloop's own go on
delivering after `pause_reading` and let one busy stream starve its neighbours.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview
Pieces = Sequence[Buffer]
"""What one read brought: small frames that came together leave in one write."""
Sink = Callable[[Pieces], None]

EARLY_LIMIT = 64 * 1024
"""Bytes a leg keeps before it is joined; past it the leg stops reading."""
HIGH_WATER = 256 * 1024
"""Unsent bytes at which the peer stops reading. More only adds delay."""
LOW_WATER = 64 * 1024
CLOSE_GRACE = 2.0
"""Seconds a leg may take to flush and say goodbye before it is cut."""
USER_TIMEOUT_MS = 30_000
"""Unacknowledged data, or a shut receive window, this old ends a connection."""

NORMAL = 1000
GOING_AWAY = 1001
LOST = 1006
"""Never sent: says that a connection ended without a goodbye (RFC 6455 7.4.1)."""


@dataclass(frozen=True)
class Ending:
    """Why a leg ended: a WebSocket close code and a reason in words.

    `local` says that this side closed it, and not the other end or the network.
    """

    code: int
    reason: str = ""
    local: bool = False


class Leg:
    """One connection of a relay. Subclasses bring the transport."""

    def __init__(self, *, early_limit: int = EARLY_LIMIT) -> None:
        self.received = 0
        """Payload bytes read from the other end so far."""
        self.ending: Ending | None = None
        """Set once the connection is gone."""
        self.on_ended: Callable[[Ending], None] | None = None
        """Called once, when the connection is gone."""
        self._transport: asyncio.Transport | None = None
        self._peer: Leg | None = None
        self._sink: Sink = self._keep_early
        self._early: list[bytes] = []
        self._early_size = 0
        self._early_limit = early_limit
        self._closing: Ending | None = None
        self._cut: asyncio.TimerHandle | None = None

    # What a subclass brings.

    def write_all(self, pieces: Pieces) -> None:
        """Send the pieces; what the socket does not take at once is copied and kept."""
        raise NotImplementedError

    def _say_goodbye(self, code: int, reason: str) -> None:
        """Begin the protocol's own farewell, if it has one, and close when flushed."""
        raise NotImplementedError

    # What the pump and the owner use.

    def write(self, data: Buffer) -> None:
        """Send one piece."""
        self.write_all((data,))

    @property
    def connected(self) -> bool:
        return self._transport is not None

    @property
    def joined(self) -> bool:
        return self._peer is not None

    @property
    def unsent(self) -> int:
        """Bytes accepted by `write` that the socket has not taken yet."""
        transport = self._transport
        return transport.get_write_buffer_size() if transport is not None else 0

    @property
    def reading(self) -> bool:
        """False while backpressure, or too many early bytes, hold the reading."""
        return self._transport is not None and self._transport.is_reading()

    @property
    def pulse(self) -> tuple[int, ...]:
        """Changes whenever the other end shows life; see `keepalive`."""
        return (self.received, self.unsent)

    def ping(self) -> None:
        """Ask the other end for a sign of life, where the protocol can."""

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def attach(self, peer: "Leg", sink: Sink) -> None:
        """Send everything to `sink` from now on, early bytes first.

        `peer` is the leg that `sink` writes to in the end: its backpressure rules
        this leg's reading.
        """
        if self._closing is not None:
            return
        self._peer = peer
        self._sink = sink
        early, self._early, self._early_size = self._early, [], 0
        # Before the flush: the flush itself may have to pause this leg.
        self.resume_reading()
        if early:
            sink(early)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Flush, say goodbye and close; cut after `CLOSE_GRACE`. Again is a no-op."""
        if self._closing is not None or self.ending is not None:
            return
        self._closing = Ending(code, reason, local=True)
        self._sink = _discard
        if self._transport is None:
            return
        # Read on and discard, or the other end's farewell would never be seen.
        self.resume_reading()
        self._say_goodbye(code, reason)
        self._cut = asyncio.get_running_loop().call_later(CLOSE_GRACE, self._abort)

    def abort(self, reason: str = "") -> None:
        """Cut the connection at once, without a goodbye."""
        if self._closing is None:
            self._closing = Ending(LOST, reason, local=True)
        self._abort()

    # What transports report.

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _connected(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        tune(transport)

    def _deliver(self, pieces: Pieces, size: int) -> None:
        self.received += size
        self._sink(pieces)

    def _ended(self, ending: Ending) -> None:
        if self.ending is not None:
            return
        self.ending = self._closing or ending
        self._sink = _discard
        self._peer = self._transport = None
        self._early.clear()
        if self._cut is not None:
            self._cut.cancel()
        if self.on_ended is not None:
            self.on_ended(self.ending)

    def _keep_early(self, pieces: Pieces) -> None:
        self._early.append(b"".join(pieces))
        self._early_size += len(self._early[-1])
        if self._early_size >= self._early_limit:
            self.pause_reading()

    # Called by the transport (these names are asyncio's).

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer.pause_reading()

    def resume_writing(self) -> None:
        peer = self._peer
        if peer is not None and peer.ending is None:
            peer.resume_reading()


Explain = Callable[[Leg, Ending], tuple[int, str] | None]
"""Given the leg that ended and how: what the other leg is closed with.

None leaves the other leg open; whoever waits for the pump then closes it.
"""


def pass_on(_leg: Leg, ending: Ending) -> tuple[int, str]:
    """The default: the other leg learns what this one said."""
    return ending.code, ending.reason


class Pump:
    """Joins two legs until one of them ends, which ends the other.

    Args:
        left: one leg.
        right: the other leg.
        left_to_right: takes what `left` reads, in place of `right.write_all`; for a
            filter that writes to `right` itself.
        explain: chooses the close code and reason of the leg that outlived its peer.
    """

    def __init__(
        self,
        left: Leg,
        right: Leg,
        *,
        left_to_right: Sink | None = None,
        explain: Explain = pass_on,
    ) -> None:
        self.left = left
        self.right = right
        self._explain = explain
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._hooks = {left: left.on_ended, right: right.on_ended}
        left.on_ended = lambda ending: self._on_ended(left, ending)
        right.on_ended = lambda ending: self._on_ended(right, ending)
        for leg in (left, right):
            if leg.ending is not None:
                # Its own hook has had its call already.
                self._hooks.pop(leg)
                self._on_ended(leg, leg.ending)
                return
        right.attach(left, left.write_all)
        left.attach(right, left_to_right or right.write_all)

    def close(self, code: int, reason: str) -> None:
        """Close both legs."""
        self.left.close(code, reason)
        self.right.close(code, reason)

    async def wait_ended(self) -> Ending:
        """How the first leg ended; both are closed or closing then."""
        return await asyncio.shield(self._ended)

    def _on_ended(self, leg: Leg, ending: Ending) -> None:
        other = self.right if leg is self.left else self.left
        last_words = self._explain(leg, ending)
        if last_words is not None:
            other.close(*last_words)
        if not self._ended.done():
            self._ended.set_result(ending)
        hook = self._hooks.pop(leg, None)
        if hook is not None:
            hook(ending)


def tune(transport: asyncio.BaseTransport) -> None:
    """No delay, and dead peers found: what every relay socket gets."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 20),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
    ):
        # Linux has all four; elsewhere (a developer's laptop) what there is must do.
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _discard(_pieces: Pieces) -> None:
    """Where the bytes of a closing leg go."""
