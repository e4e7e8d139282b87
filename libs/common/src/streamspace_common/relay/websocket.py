"""A leg that is a WebSocket, on either end of it, framed by picows.

Frames are forwarded as they come, also the fragments of a message; text is refused,
since a relay carries bytes. Pings are answered by picows. permessage-deflate does not
exist here, on purpose: pixels are compressed already.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Mapping
from typing import cast

from picows import WSCloseCode, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport
from picows import ws_connect as picows_connect

from streamspace_common.relay.pump import (
    EARLY_LIMIT,
    GOING_AWAY,
    LOST,
    NORMAL,
    UNSUPPORTED,
    Buffer,
    Ending,
    Leg,
)

MAX_FRAME = 1024 * 1024
"""Larger frames end the connection with 1009; senders cut far below it."""
REASON_BYTES = 123
"""What a close frame has room for beside its code (RFC 6455 5.5)."""

_BINARY = WSMsgType.BINARY
_CONTINUATION = WSMsgType.CONTINUATION
_NO_CODE = 0
_UNSENDABLE = frozenset({1004, 1005, LOST, 1015})

# At its lowest levels picows logs whole upgrade requests, and those hold secrets.
logging.getLogger("picows").setLevel(logging.WARNING)


class HandshakeRefusedError(OSError):
    """The other end answered the upgrade with something else than 101.

    `status` is the HTTP status, or None where there was no answer to speak of.
    """

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


class WebSocketLeg(WSListener, Leg):
    """A WebSocket as a leg, for `ws_connect` and for servers alike."""

    def __init__(self, *, early_limit: int = EARLY_LIMIT) -> None:
        Leg.__init__(self, early_limit=early_limit)
        self._socket: WSTransport | None = None
        self._heard = 0

    def write(self, data: Buffer) -> None:
        if self._socket is not None:
            self._socket.send(_BINARY, data)

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

    # Called by picows.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._socket = transport
        self._connected(transport.underlying_transport)
        if self._closing is not None:
            closing, self._closing = self._closing, None
            self.close(closing.code, closing.reason)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is _BINARY or kind is _CONTINUATION:
            self._deliver(frame.get_payload_as_memoryview(), frame.payload_size)
            return
        self._heard += 1
        if kind is WSMsgType.CLOSE:
            # Answer in kind unless this side spoke first, then close when flushed.
            if not transport.is_close_frame_sent:
                code = _number(frame.get_close_code())
                transport.send_close(cast(WSCloseCode, code))
            transport.disconnect()
        elif kind is WSMsgType.TEXT:
            self.close(UNSUPPORTED, "Only binary messages are carried here.")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._socket = None
        self._ended(_ending_of(transport))

    # picows calls these by its own dispatch, which finds only what a class itself
    # overrides; its base would raise.

    def pause_writing(self) -> None:
        Leg.pause_writing(self)

    def resume_writing(self) -> None:
        Leg.resume_writing(self)


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


async def connect_websocket(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 5.0,
    tls: ssl.SSLContext | None = None,
) -> WebSocketLeg:
    """Open a WebSocket to `url` (ws or wss) as a leg; follows no redirects.

    Raises:
        HandshakeRefusedError: the server refused the upgrade.
        OSError: no connection (TimeoutError included).
    """
    try:
        async with asyncio.timeout(timeout):
            _, leg = await picows_connect(
                lambda _request, _response: WebSocketLeg(),
                url,
                ssl_context=tls,
                extra_headers=dict(headers or {}),
                max_frame_size=MAX_FRAME,
                max_redirects=0,
                websocket_handshake_timeout=timeout,
                use_aiofastnet=True,
            )
    except WSHandshakeError as error:
        status = int(error.response.status) if error.response is not None else None
        said = f"HTTP {status}" if status is not None else "no valid answer"
        raise HandshakeRefusedError(f"the upgrade was refused: {said}", status) from error
    # picows gives no listener where the connection ended before any answer.
    if leg is None:
        raise HandshakeRefusedError("the connection was closed during the upgrade", None)
    return cast(WebSocketLeg, leg)


async def close_and_wait(leg: Leg, code: int = NORMAL, reason: str = "") -> None:
    """Close a leg and wait until it is gone (bounded by the leg's own grace)."""
    if leg.ending is not None:
        return
    gone = asyncio.Event()
    hook = leg.on_ended

    def ended(ending: Ending) -> None:
        gone.set()
        if hook is not None:
            hook(ending)

    leg.on_ended = ended
    leg.close(code, reason)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await gone.wait()
