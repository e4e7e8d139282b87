"""A leg that is a WebSocket, on either end of it.

picows speaks the protocol: the upgrade, pings and the farewell. The data frames pass it
by (see `frames`): `_Framing` is picows' protocol with a reader of ours in front of it,
which hands it control frames only. Text is refused, since a relay carries bytes, and
permessage-deflate does not exist here, on purpose: pixels are compressed already.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import aiofastnet
from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from streamspace_common.relay import frames
from streamspace_common.relay.frames import FrameReader
from streamspace_common.relay.pump import (
    EARLY_LIMIT,
    GOING_AWAY,
    LOST,
    NORMAL,
    Ending,
    Leg,
    Pieces,
)
from streamspace_common.runtime.proxies import connect_through

REASON_BYTES = 123
"""What a close frame has room for beside its code (RFC 6455 5.5)."""
READ_SIZE = 512 * 1024
"""Bytes per read. Smaller ones cost more calls; larger ones leave the processor's cache
and make neighbours wait: this one keeps them waiting a quarter of a millisecond."""
MAX_HEAD = 16 * 1024

_NO_CODE = 0
_UNSENDABLE = frozenset({1004, 1005, LOST, 1015})
_HEAD_END = b"\r\n\r\n"

# At its lowest levels picows logs whole upgrade requests, and those hold secrets.
logging.getLogger("picows").setLevel(logging.WARNING)
_log = logging.getLogger("picows.relay")

_SHORT_HEADS = {
    masked: [frames.header(size, masked=masked) for size in range(126)] for masked in (False, True)
}
"""The headers of small frames, made once: most frames carry a key or a pointer's move."""

# One buffer for all connections: what is read is handed on before the next read.
_HEADROOM = 256
_shared = memoryview(bytearray(_HEADROOM + READ_SIZE))
_read_into = _shared[_HEADROOM:]


class HandshakeRefusedError(OSError):
    """The other end answered the upgrade with something else than 101.

    `status` is the HTTP status, or None where there was no answer to speak of.
    """

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


class WebSocketLeg(WSListener, Leg):
    """A WebSocket as a leg; made by `connect_websocket` and `accept_websocket`."""

    def __init__(self, *, early_limit: int = EARLY_LIMIT) -> None:
        Leg.__init__(self, early_limit=early_limit)
        self._socket: WSTransport | None = None
        self._masks = False
        self._heads = _SHORT_HEADS[False]
        self._heard = 0

    def write_all(self, pieces: Pieces) -> None:
        if self._transport is not None and self._closing is None:
            size = sum(map(len, pieces))
            head = self._heads[size] if size < 126 else frames.header(size, masked=self._masks)
            self._transport.writelines((head, *pieces))

    def ping(self) -> None:
        if self._socket is not None:
            self._socket.send_ping()

    @property
    def pulse(self) -> tuple[int, ...]:
        return (self.received, self._heard, self.unsent)

    def _say_goodbye(self, code: int, reason: str) -> None:
        sendable = GOING_AWAY if code in _UNSENDABLE else code
        if self._socket is not None:
            self._socket.send_close(cast(WSCloseCode, sendable), shorten(reason).encode())

    # Called by the framing.

    def on_payload(self, pieces: Pieces) -> None:
        self._deliver(pieces, sum(map(len, pieces)))

    def on_control(self) -> None:
        self._heard += 1

    # Called by picows.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._socket = transport
        self._masks = transport.is_client_side
        self._heads = _SHORT_HEADS[self._masks]
        self._connected(transport.underlying_transport)
        if self._closing is not None:
            closing, self._closing = self._closing, None
            self.close(closing.code, closing.reason)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            code, reason = _number(frame.get_close_code()), frame.get_close_reason() or ""
            # Answer in kind unless this side spoke first, then close when flushed.
            if not transport.is_close_frame_sent:
                self._closing = self._closing or Ending(code, reason)
                transport.send_close(cast(WSCloseCode, code))
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._socket = None
        self._ended(_ending_of(transport))

    # picows calls these by its own dispatch, which finds only what a class itself
    # overrides; its base would raise.

    def pause_writing(self) -> None:
        Leg.pause_writing(self)

    def resume_writing(self) -> None:
        Leg.resume_writing(self)


class _Framing(WSProtocol):  # type: ignore[misc]
    """picows' protocol behind a reader of data frames; one per connection."""

    def __init__(
        self,
        make_leg: Callable[..., Any],
        *,
        client: bool,
        timeout: float,
        host: str | None = None,
        path: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            host,
            path,
            client,
            make_leg,
            _log,
            True,  # disconnect on an exception of the leg
            timeout,
            False,  # no pings of its own: `keepalive` sees both sides of a stream
            20,
            20,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            True,  # answer pings
            frames.MAX_FRAME,
            headers,
            MAX_HEAD,
        )
        self._masked = not client
        self._head: bytearray | None = bytearray()
        self._reader: FrameReader | None = None
        self._rest = b""

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_into

    def buffer_updated(self, nbytes: int) -> None:
        rest, reader = self._rest, self._reader
        if rest or reader is None:
            begin = _HEADROOM - len(rest)
            _shared[begin:_HEADROOM] = rest
            self.take(_shared[begin : _HEADROOM + nbytes])
        elif (used := reader.feed(_read_into[:nbytes])) < nbytes:
            self._rest = bytes(_read_into[used:nbytes])

    def take(self, data: memoryview) -> None:
        """Read `data`: what was kept, and what has come since."""
        if self._reader is None:
            self._take_head(data)
            return
        used = self._reader.feed(data)
        self._rest = bytes(data[used:])

    def _take_head(self, data: memoryview) -> None:
        head = self._head
        if head is None:
            return  # refused, and closing
        head += data
        end = head.find(_HEAD_END)
        if end < 0 and len(head) < MAX_HEAD:
            return
        end = end + len(_HEAD_END) if end >= 0 else len(head)
        self._head = None
        # picows gets the head alone, so that it never begins a data frame itself.
        self._to_picows(bytes(head[:end]))
        leg = self.listener
        if leg is None:
            return
        self._reader = FrameReader(
            masked=self._masked,
            on_payload=leg.on_payload,
            on_control=self._on_control,
            on_error=leg.close,
        )
        self.take(memoryview(bytes(head[end:])))

    def _on_control(self, frame: bytes) -> None:
        self.listener.on_control()
        self._to_picows(frame)

    def _to_picows(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            room = super().get_buffer(-1)
            size = min(len(room), len(data) - at)
            room[:size] = data[at : at + size]
            at += size
            super().buffer_updated(size)


def accept_websocket(
    transport: asyncio.Transport,
    leg: WebSocketLeg,
    data: bytes,
    *,
    subprotocol: str | None = None,
    timeout: float = 10.0,
) -> None:
    """Answer an upgrade and put `leg` behind it; tells it by `on_ws_connected`.

    Args:
        transport: an accepted connection, taken over from whoever read from it.
        leg: the server's end.
        data: all that was read, the request's head first; the head has been checked.
        subprotocol: the one that is chosen, if any.
        timeout: seconds; of no importance, as the head is there.
    """

    def accept(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        # Firefox says `keep-alive, Upgrade`; picows wants the one word.
        request.headers["Connection"] = "Upgrade"
        extra = {"Sec-WebSocket-Protocol": subprotocol} if subprotocol else None
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(extra), leg)

    framing = _Framing(accept, client=False, timeout=timeout)
    transport.set_protocol(framing)
    framing.connection_made(transport)
    framing.take(memoryview(data))


async def connect_websocket(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 5.0,
    tls: ssl.SSLContext | None = None,
    proxy: str | None = None,
) -> WebSocketLeg:
    """Open a WebSocket to `url` (ws or wss) as a leg; follows no redirects.

    Args:
        url: where to.
        headers: sent with the upgrade.
        timeout: seconds for all of it.
        tls: whom to trust; by default whom the system does.
        proxy: a forward proxy that leads there, `http://host:port`.

    Raises:
        HandshakeRefusedError: the server refused the upgrade.
        OSError: no connection (TimeoutError included).
    """
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    leg = WebSocketLeg()

    def framing() -> _Framing:
        return _Framing(
            lambda _request, _response: leg,
            client=True,
            timeout=timeout,
            host=parts.netloc.rpartition("@")[2],
            path=target,
            headers=dict(headers or {}),
        )

    try:
        async with asyncio.timeout(timeout):
            host, port = str(parts.hostname), parts.port or (443 if secure else 80)
            place: dict[str, Any] = {"host": host, "port": port}
            if proxy is not None:
                place = {"sock": await connect_through(proxy, host, port)}
                if secure:
                    place["server_hostname"] = host
            transport, protocol = await aiofastnet.create_connection(
                asyncio.get_running_loop(), framing, ssl=(tls or True) if secure else None, **place
            )
            try:
                await protocol.wait_until_handshake_complete()
            except asyncio.CancelledError:
                transport.abort()
                raise
    except WSHandshakeError as error:
        status = int(error.response.status) if error.response is not None else None
        said = f"HTTP {status}" if status is not None else "no valid answer"
        raise HandshakeRefusedError(f"the upgrade was refused: {said}", status) from error
    if leg.ending is not None or not leg.connected:
        raise HandshakeRefusedError("the connection was closed during the upgrade", None)
    return leg


def _ending_of(transport: WSTransport) -> Ending:
    """What the close frames say, or 1006 where there were none."""
    shake = transport.close_handshake
    if shake is None:
        return Ending(LOST, "The connection was lost.")
    if shake.recv is not None:
        return Ending(_number(shake.recv.code), shake.recv.reason or "")
    if shake.sent is not None:
        return Ending(_number(shake.sent.code), shake.sent.reason or "", local=True)
    return Ending(LOST, "The connection was lost.")


def _number(code: WSCloseCode) -> int:
    """The code as a number: picows' enum is of integers, codes it does not name included."""
    number = cast(int, code)
    return NORMAL if number == _NO_CODE else int(number)


def shorten(reason: str) -> str:
    """`reason` cut to what a close frame can carry, never inside a character."""
    raw = reason.encode()
    if len(raw) <= REASON_BYTES:
        return reason
    return raw[: REASON_BYTES - 3].decode(errors="ignore") + "\N{HORIZONTAL ELLIPSIS}"
