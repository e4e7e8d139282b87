"""Questions about streams and consumers, for metrics, reconcilers and operators."""

import base64
from dataclasses import dataclass
from datetime import datetime

from streamspace_common.bus.envelope import TYPE
from streamspace_common.bus.errors import ApiError
from streamspace_common.bus.link import Link
from streamspace_common.bus.tail import StreamMessage

_HEADER_LINE = b"NATS/1.0\r\n"


@dataclass(frozen=True)
class ConsumerLag:
    """How far a durable is: waiting for delivery, for acknowledgement, for another try.

    `waiting` counts open pull requests; none means that nobody is consuming.
    """

    pending: int
    ack_pending: int
    redelivered: int
    waiting: int


async def last_sequence(link: Link, stream: str) -> int:
    info = await link.api(f"STREAM.INFO.{stream}")
    return int(info["state"]["last_seq"])


async def consumer_lag(link: Link, stream: str, durable: str) -> ConsumerLag:
    info = await link.api(f"CONSUMER.INFO.{stream}.{durable}")
    return ConsumerLag(
        pending=int(info.get("num_pending", 0)),
        ack_pending=int(info.get("num_ack_pending", 0)),
        redelivered=int(info.get("num_redelivered", 0)),
        waiting=int(info.get("num_waiting", 0)),
    )


async def newest(link: Link, stream: str, subject: str) -> StreamMessage | None:
    """The newest message of one subject, read by the stream's leader."""
    try:
        body = await link.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    except ApiError as error:
        if error.is_missing:
            return None
        raise
    stored = body["message"]
    headers = _headers(base64.b64decode(stored.get("hdrs", "")))
    return StreamMessage(
        subject=str(stored["subject"]),
        sequence=int(stored["seq"]),
        time=datetime.fromisoformat(_microseconds(str(stored["time"]))),
        type=headers.get(TYPE, ""),
        payload=base64.b64decode(stored.get("data", "")),
        headers=headers,
    )


async def purge_subject(link: Link, stream: str, subject: str) -> int:
    """Remove every message of one subject; returns how many there were."""
    body = await link.api(f"STREAM.PURGE.{stream}", {"filter": subject})
    return int(body.get("purged", 0))


def _headers(block: bytes) -> dict[str, str]:
    lines = block.removeprefix(_HEADER_LINE).split(b"\r\n")
    pairs = (line.partition(b":") for line in lines if b":" in line)
    return {name.decode(): value.strip().decode("utf-8", "replace") for name, _, value in pairs}


def _microseconds(moment: str) -> str:
    """RFC 3339 with the server's nanoseconds cut to what `datetime` can hold."""
    whole, _, rest = moment.removesuffix("Z").partition(".")
    return f"{whole}.{rest[:6]:0<6}+00:00"
