"""The vendor's client, mended in three places, and with what a stream read by the million needs.

It looks at each character of each header's name; with our dozen headers that is half of the
time it takes to read a message. And it builds an object for each message and hands it
through two queues and a task; a `Sink` is called with the bytes instead.

An answer to a ping that comes after `flush` has given up on it raises where everything is
read, which ends the reading: the client then hears nothing, and says that it is connected,
until its own pings are missed most of a minute later.

It closes for good when the server ends a connection for a reason, such as a credential that
has expired or was revoked. That is right for a service, whose credential a person renews. An
agent renews its own: its client goes on trying, and shows the newest token each time. (When
an account's signing key is replaced, the reason that its users are given first is a limit of
theirs, which is none any more.)
"""

from collections.abc import Callable
from typing import Any

from nats import errors
from nats.aio.client import Client as VendorClient
from nats.aio.subscription import Subscription
from nats.protocol.parser import PERMISSIONS_ERR, STALE_CONNECTION

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


class Client(VendorClient):
    """What it accepts and what it makes of it are as before."""

    renewable = False
    """Whether a refused credential is a reason to try again rather than the end."""

    def __init__(self) -> None:
        super().__init__()
        self._sinks: dict[int, Sink] = {}

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
