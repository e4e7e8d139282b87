"""The vendor's client, mended in five places, and with what a stream read by the million needs.

It looks at each character of each header's name; with our dozen headers that is half of the
time it takes to read a message. It takes a message apart with one pattern after another, and
a coroutine at the end, which costs 14 us. And it builds an object for each message and hands
it through two queues and a task; a `Sink` is called with the bytes instead, 4 us after they
came in.

An answer to a ping that comes after `flush` has given up on it raises where everything is
read, which ends the reading: the client then hears nothing, and says that it is connected,
until its own pings are missed most of a minute later.

Its end fails in the middle, and leaves its tasks behind, when something is left to be sent over
a connection that has just broken. And it cancels an attempt to reconnect once, which counts for
nothing when the server answers in that instant (`asyncio.wait_for` of Python 3.11 returns the
answer instead): the attempt would go on, and connect somebody who has left.

It closes for good when the server ends a connection for a reason, such as a credential that
has expired or was revoked. That is right for a service, whose credential a person renews. An
agent renews its own: its client goes on trying, and shows the newest token each time. (When
an account's signing key is replaced, the reason that its users are given first is a limit of
theirs, which is none any more.)
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from nats import errors
from nats.aio.client import Client as VendorClient
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError
from nats.protocol.parser import (
    AWAITING_MSG_PAYLOAD,
    CRLF_SIZE,
    PERMISSIONS_ERR,
    STALE_CONNECTION,
    Parser,
)

log = structlog.get_logger(__name__)

_MESSAGE, _WITH_REPLY = b"HMSG ", 6
"""`HMSG <subject> <subscription> [reply] <size of headers> <size of all>`."""
_TOLD_AGAIN = 0.05
"""Seconds."""
_BLANK = " \t\r\n\x0b\x0c"
_REFUSALS = (
    "authorization violation",
    "authentication expired",
    "authentication revoked",
    "authentication violation",
)


def is_refusal(error: object) -> bool:
    """Whether the server says that a credential is not, or no longer, good."""
    told = str(error).lower()
    return any(words in told for words in _REFUSALS)


Sink = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Takes subject, reply subject, payload and headers as they stood on the wire."""


class _Parser(Parser):
    """Takes whole messages for a sink out of what came in; all else is the vendor's business."""

    def __init__(self, client: VendorClient, sinks: Mapping[int, Sink]) -> None:
        super().__init__(client)
        self._client = client
        self._sinks = sinks

    async def parse(self, data: bytes = b"") -> None:
        if self.state == AWAITING_MSG_PAYLOAD:
            # Only what the vendor's message still lacks: it would take all that follows too.
            lacks = self.needed + CRLF_SIZE - len(self.buf)
            await super().parse(data[:lacks])
            data = data[lacks:]
            if not data:
                return
        self.buf.extend(data)
        if not self._deliver():
            await super().parse()

    def _deliver(self) -> bool:
        """Hand out what is complete; whether all that is left is the begin of such a message.

        Raises:
            ProtocolError: the sizes of a message are not numbers.
        """
        at = 0
        waits = False
        with memoryview(self.buf) as view:
            while self.buf.startswith(_MESSAGE, at) and (line := self.buf.find(b"\r\n", at)) > 0:
                words = view[at:line].tobytes().split()
                try:
                    sink = self._sinks.get(int(words[2]))
                    begin, size, total = line + CRLF_SIZE, int(words[-2]), int(words[-1])
                except (ValueError, IndexError):
                    raise ProtocolError("nats: malformed HMSG") from None
                waits = sink is not None and begin + total + CRLF_SIZE > len(view)
                if sink is None or waits:
                    break
                head = view[begin : begin + size].tobytes()
                payload = view[begin + size : begin + total].tobytes()
                self._client.stats["in_msgs"] += 1
                self._client.stats["in_bytes"] += len(payload)
                sink(words[1], words[3] if len(words) == _WITH_REPLY else b"", payload, head)
                at = begin + total + CRLF_SIZE
        del self.buf[:at]
        return waits or not self.buf


class Client(VendorClient):
    """What it accepts and what it makes of it are as before."""

    renewable = False
    """Whether a refused credential is a reason to try again rather than the end."""

    def __init__(self) -> None:
        super().__init__()
        self._sinks: dict[int, Sink] = {}
        self._ps = _Parser(self, self._sinks)

    def divert(self, subscription: Subscription, sink: Sink) -> None:
        """Give a subscription's messages to `sink`, in order, and to nobody else."""
        self._sinks[subscription._id] = sink  # noqa: SLF001 - the vendor's own key

    def release(self, subscription: Subscription) -> None:
        self._sinks.pop(subscription._id, None)  # noqa: SLF001 - as above

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any
    ) -> None:
        sink = self._sinks.get(sid)
        if sink is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        sink(subject, reply, data, headers)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if not self.is_closed:
            await self._send_pending()
            await self._end_attempt()
        await super()._close(status, do_cbs)

    async def _send_pending(self) -> None:
        """Send what is left to send, or forget it where there is no way any more."""
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        if not pending or not self._transport:
            return
        try:
            self._transport.writelines(pending)
            await self._transport.drain()  # type: ignore[no-untyped-call]
        except OSError as error:
            log.debug("bus.not_sent", error=str(error))

    async def _end_attempt(self) -> None:
        """Reconnect no more, however often the attempt has to be told."""
        attempt = self._reconnection_task
        if attempt is None or attempt is asyncio.current_task():
            return
        while not attempt.done():
            attempt.cancel()
            await asyncio.wait({attempt}, timeout=_TOLD_AGAIN)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pongs_received += 1
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        return _parse_lines(raw)

    async def _process_err(self, err_msg: str) -> None:
        harmless = PERMISSIONS_ERR in err_msg.lower() or STALE_CONNECTION in err_msg.lower()
        if harmless or not self.renewable:
            await super()._process_err(err_msg)
            return
        error = errors.Error(f"nats: {err_msg.strip(chr(39))}")
        await self._error_cb(error)
        await self._process_op_err(error)


def parse_headers(block: bytes | None) -> dict[str, str]:
    """The headers in a message's block, which begins with the line `NATS/1.0`."""
    if not block:
        return {}
    _, _, lines = block.partition(b"\r\n")
    return _parse_lines(lines)


def _parse_lines(raw: bytes) -> dict[str, str]:
    headers = {}
    for line in raw.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        name = name.strip(_BLANK)
        if colon and name.isascii() and len(name.split(None, 1)) < 2:
            headers[name] = value.strip(_BLANK)
    return headers
