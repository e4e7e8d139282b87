"""Questions about streams and consumers, for metrics, reconcilers and operators."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streamspace_common.bus.envelope import TYPE
from streamspace_common.bus.errors import ApiError
from streamspace_common.bus.link import Link
from streamspace_common.bus.tail import StreamMessage

_HEADER_LINE = b"NATS/1.0\r\n"


@dataclass(frozen=True)
class ConsumerLag:
    """How far a durable is: waiting for delivery, for acknowledgement, for another try.

    `waiting` counts open pull requests; none means that nobody is consuming. `delivered`
    is the stream sequence of the furthest message that was delivered at all, `settled` that
    of the message up to which nothing is open any more.
    """

    pending: int
    ack_pending: int
    redelivered: int
    waiting: int
    delivered: int = 0
    settled: int = 0


@dataclass(frozen=True)
class StreamState:
    """What a stream holds; `bytes` on disk, `limit` of them at most (-1: no limit)."""

    name: str
    messages: int
    bytes: int
    limit: int
    first_sequence: int
    last_sequence: int
    first_at: datetime | None
    last_at: datetime | None
    consumers: int


async def stream_state(link: Link, stream: str) -> StreamState:
    info = await link.api(f"STREAM.INFO.{stream}")
    state = info["state"]
    held = int(state["messages"]) > 0
    return StreamState(
        name=stream,
        messages=int(state["messages"]),
        bytes=int(state["bytes"]),
        limit=int(info["config"].get("max_bytes", -1)),
        first_sequence=int(state["first_seq"]),
        last_sequence=int(state["last_seq"]),
        first_at=_moment(state["first_ts"]) if held else None,
        last_at=_moment(state["last_ts"]) if held else None,
        consumers=int(state.get("consumer_count", 0)),
    )


async def consumers(link: Link, stream: str) -> dict[str, ConsumerLag]:
    """How far each consumer of a stream is, the passing ones of readers included."""
    found: dict[str, ConsumerLag] = {}
    while True:
        page = await link.api(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        for info in page.get("consumers") or ():
            found[str(info["name"])] = _lag(info)
        if len(found) >= int(page.get("total", 0)) or not page.get("consumers"):
            return found


async def first_since(
    link: Link, stream: str, subject: str, moment: datetime
) -> StreamMessage | None:
    """The first message stored at `moment` or later whose subject matches."""
    start = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return await _get(link, stream, {"start_time": start, "next_by_subj": subject})


async def last_sequence(link: Link, stream: str) -> int:
    info = await link.api(f"STREAM.INFO.{stream}")
    return int(info["state"]["last_seq"])


async def consumer_lag(link: Link, stream: str, durable: str) -> ConsumerLag:
    info = await link.api(f"CONSUMER.INFO.{stream}.{durable}")
    return _lag(info)


def _lag(info: Mapping[str, Any]) -> ConsumerLag:
    return ConsumerLag(
        pending=int(info.get("num_pending", 0)),
        ack_pending=int(info.get("num_ack_pending", 0)),
        redelivered=int(info.get("num_redelivered", 0)),
        waiting=int(info.get("num_waiting", 0)),
        delivered=int(info.get("delivered", {}).get("stream_seq", 0)),
        settled=int(info.get("ack_floor", {}).get("stream_seq", 0)),
    )


async def newest(link: Link, stream: str, subject: str) -> StreamMessage | None:
    """The newest message of one subject, read by the stream's leader."""
    return await _get(link, stream, {"last_by_subj": subject})


async def next_of(link: Link, stream: str, subject: str, sequence: int) -> StreamMessage | None:
    """The first message from `sequence` on whose subject matches; None when there is none."""
    return await _get(link, stream, {"seq": sequence, "next_by_subj": subject})


async def bounds(link: Link, stream: str) -> tuple[int, int]:
    """The first and the last sequence that the stream holds."""
    state = (await link.api(f"STREAM.INFO.{stream}"))["state"]
    return int(state["first_seq"]), int(state["last_seq"])


async def message_at(link: Link, stream: str, sequence: int) -> StreamMessage | None:
    """The message with this sequence, unless it has been replaced or removed."""
    return await _get(link, stream, {"seq": sequence})


async def _get(link: Link, stream: str, which: Mapping[str, object]) -> StreamMessage | None:
    try:
        body = await link.api(f"STREAM.MSG.GET.{stream}", which)
    except ApiError as error:
        if error.is_missing:
            return None
        raise
    stored = body["message"]
    headers = _headers(base64.b64decode(stored.get("hdrs", "")))
    return StreamMessage(
        subject=str(stored["subject"]),
        sequence=int(stored["seq"]),
        time=_moment(stored["time"]),
        type=headers.get(TYPE, ""),
        payload=base64.b64decode(stored.get("data", "")),
        headers=headers,
    )


async def purge_subject(link: Link, stream: str, subject: str) -> int:
    """Remove every message whose subject matches; returns how many there were."""
    body = await link.api(f"STREAM.PURGE.{stream}", {"filter": subject})
    return int(body.get("purged", 0))


def _headers(block: bytes) -> dict[str, str]:
    lines = block.removeprefix(_HEADER_LINE).split(b"\r\n")
    pairs = (line.partition(b":") for line in lines if b":" in line)
    return {name.decode(): value.strip().decode("utf-8", "replace") for name, _, value in pairs}


def _moment(text: object) -> datetime:
    return datetime.fromisoformat(_microseconds(str(text)))


def _microseconds(moment: str) -> str:
    """RFC 3339 with the server's nanoseconds cut to what `datetime` can hold."""
    whole, _, rest = moment.removesuffix("Z").partition(".")
    return f"{whole}.{rest[:6]:0<6}+00:00"
