"""Reading a stream in order and without gaps, as long as the reader likes.

An ephemeral push consumer without acknowledgements delivers to an inbox of ours. Its
own sequence numbers are consecutive, so a gap, a silence of three heartbeats, or a
reconnect is noticed, and a new consumer then begins right after the last message
that was handed out. Flow control requests stand in the same queue as the messages
and are answered when the reader gets to them, so a slow reader slows its consumer
instead of filling our memory.
"""

import asyncio
import random
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

import structlog
from nats import errors as nats_errors
from nats.aio.subscription import Subscription

from streamspace_common.bus.client import parse_headers
from streamspace_common.bus.envelope import TYPE
from streamspace_common.bus.errors import BusError, BusUnavailableError
from streamspace_common.bus.link import Link

log = structlog.get_logger(__name__)

_HEARTBEAT = 1.0
_SILENCE = 3 * _HEARTBEAT
_LONGEST_PAUSE = 2.0
_SECOND = 1_000_000_000
_RUN = 500
"""Messages handed out at once: few enough that whoever stops reading loses little."""
_STATUS, _SPACE = len(b"NATS/1.0"), ord(" ")
"""Where the server's own messages have a status, and all others the end of the line."""
_TOKENS, _SEQUENCE, _SEQUENCE_OF_NEWER = 9, 5, 7
"""`$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>...`; newer servers say more."""


@dataclass(frozen=True)
class StreamMessage:
    """One stored message; `type` is its `ce-type` header.

    `pending` is how many more of those asked for the stream held when this one was sent.
    """

    subject: str
    sequence: int
    time: datetime
    type: str
    payload: bytes
    headers: Mapping[str, str]
    pending: int = 0


@dataclass(frozen=True)
class StartAt:
    """Where reading begins; use one of the constructors."""

    first: int | datetime | None

    @classmethod
    def new(cls) -> Self:
        """Only what is stored after reading began."""
        return cls(None)

    @classmethod
    def sequence(cls, number: int) -> Self:
        """The message with this stream sequence, and all later ones."""
        return cls(max(1, number))

    @classmethod
    def time(cls, moment: datetime) -> Self:
        """What was stored at `moment` (aware) or later."""
        return cls(moment)

    @classmethod
    def all(cls) -> Self:
        """Everything the stream still holds."""
        return cls(1)


class RawMessage(NamedTuple):
    """One stored message as it stood on the wire, for whoever reads a million of them.

    `nanoseconds` is when it was stored, since 1970; `head` holds its headers, unread.
    """

    subject: bytes
    sequence: int
    nanoseconds: int
    pending: int
    head: bytes | None
    payload: bytes

    def headers(self) -> dict[str, str]:
        return parse_headers(self.head)

    def plain_headers(self) -> dict[str, str]:
        """The same in half of the time, where they are written as our publishers do."""
        lines = (self.head or b"").decode("utf-8", "replace").split("\r\n")
        try:
            return dict([line.split(": ", 1) for line in lines[1:-2]])
        except ValueError:
            return self.headers()


async def tail(
    link: Link, stream: str, filters: Sequence[str], start: StartAt
) -> AsyncGenerator[StreamMessage]:
    """Read `stream` for ever; see `Bus.tail`."""
    async with aclosing(tail_raw(link, stream, filters, start)) as runs:
        async for run in runs:
            for raw in run:
                yield _read(raw)


async def tail_raw(
    link: Link, stream: str, filters: Sequence[str], start: StartAt
) -> AsyncGenerator[list[RawMessage]]:
    """Read `stream` for ever, as many messages at a time as have come; see `Bus.tail_raw`."""
    position = start.first
    failures = 0
    while True:
        feed = _Feed(link, stream)
        try:
            await link.wait_connected(_SILENCE)
            if position is None:
                position = await _end(link, stream) + 1
            await feed.open(filters, position)
            failures = 0
            while run := await feed.next():
                position = run[-1].sequence + 1
                yield run
        except BusError as error:
            failures += 1
            if failures in {1, 20}:
                log.warning("bus.tail_waits", stream=stream, error=str(error))
        finally:
            await feed.close()
        if failures:
            await asyncio.sleep(random.uniform(0.05, min(_LONGEST_PAUSE, 0.1 * 2**failures)))


async def _end(link: Link, stream: str) -> int:
    info = await link.api(f"STREAM.INFO.{stream}")
    return int(info["state"]["last_seq"])


class _Feed:
    """One consumer's life: what it delivers, until something is amiss."""

    def __init__(self, link: Link, stream: str) -> None:
        self._link = link
        self._stream = stream
        self._consumer = f"tail-{secrets.token_hex(8)}"
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[RawMessage | bytes] = deque()
        """Messages, and between them the subjects that flow control wants an answer on."""
        self._arrived = asyncio.Event()
        self._subscription: Subscription | None = None
        self._expected = 1
        self._heard = 0.0
        self._broken = False
        self._forget: Callable[[], None] = _nothing

    async def open(self, filters: Sequence[str], position: int | datetime) -> None:
        loop = self._loop
        self._forget = self._link.on_reconnected(lambda: self._break("reconnected"))
        inbox = self._link.client.new_inbox()
        try:
            self._subscription = await self._link.client.subscribe(inbox)
            self._link.client.divert(self._subscription, self._take)
        except (nats_errors.Error, OSError) as error:
            raise BusUnavailableError(str(error)) from error
        name = self._consumer
        subject = f"CONSUMER.CREATE.{self._stream}.{name}"
        if len(filters) == 1:
            subject = f"{subject}.{filters[0]}"
        self._heard = loop.time()
        config = _consumer(name, inbox, filters, await self._within(position))
        await self._link.api(subject, {"stream_name": self._stream, "config": config})
        self._heard = loop.time()

    async def _within(self, position: int | datetime) -> int | datetime:
        """A position past the end (the stream was lost and made anew) is its end."""
        if isinstance(position, datetime) or position == 1:
            return position
        end = await _end(self._link, self._stream)
        if position <= end + 1:
            return position
        log.warning("bus.tail_past_the_end", stream=self._stream, wanted=position, end=end)
        return end + 1

    async def next(self) -> list[RawMessage]:
        """The next messages, in order; none when this feed can be trusted no longer."""
        loop = self._loop
        while True:
            if not self._waiting:
                if self._broken:
                    return []
                self._arrived.clear()
                try:
                    async with asyncio.timeout_at(self._heard + _SILENCE):
                        await self._arrived.wait()
                except TimeoutError:
                    if loop.time() >= self._heard + _SILENCE:
                        self._break("silent")
                continue
            if isinstance(control := self._waiting[0], bytes):
                self._waiting.popleft()
                await self._link.publish(control.decode())
                continue
            return self._run()

    def _run(self) -> list[RawMessage]:
        """What has come up to the next question of flow control."""
        waiting = self._waiting
        run: list[RawMessage] = []
        while waiting and len(run) < _RUN:
            if isinstance(first := waiting[0], bytes):
                break
            waiting.popleft()
            run.append(first)
        return run

    async def close(self) -> None:
        self._forget()
        self._broken = True
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._link.client.release(subscription)
        if subscription is None or not self._link.client.is_connected:
            return
        try:
            await subscription.unsubscribe()
            # Nobody waits for the answer; without interest the consumer ends by itself.
            await self._link.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}")
        except (BusError, nats_errors.Error, OSError) as error:
            log.debug("bus.tail_not_closed", error=str(error))

    def _break(self, reason: str) -> None:
        if not self._broken:
            self._broken = True
            log.debug("bus.tail_restarts", stream=self._stream, reason=reason)
            self._arrived.set()

    def _take(self, subject: bytes, reply: bytes, payload: bytes, head: bytes | None) -> None:
        self._heard = self._loop.time()
        if self._broken:
            return
        if payload or head is None or head[_STATUS] != _SPACE:
            self._take_message(subject, reply, payload, head)
            return
        headers = parse_headers(head)
        if head[_STATUS + 1 : _STATUS + 4] != b"100":
            self._break(f"status {head[_STATUS + 1 : _STATUS + 4].decode()}")
        elif reply:
            self._put(reply)
        else:
            self._on_heartbeat(headers)

    def _take_message(
        self, subject: bytes, reply: bytes, payload: bytes, head: bytes | None
    ) -> None:
        try:
            # Stream and consumer stand before, a random token may stand after these.
            tokens = reply.split(b".")
            first = _SEQUENCE if len(tokens) == _TOKENS else _SEQUENCE_OF_NEWER
            sequence, mine, nanoseconds, pending = map(int, tokens[first : first + 4])
        except ValueError:
            self._break("no place in the stream")
            return
        if mine != self._expected:
            self._break("gap")
            return
        self._expected += 1
        self._put(RawMessage(subject, sequence, nanoseconds, pending, head, payload))

    def _put(self, item: RawMessage | bytes) -> None:
        self._waiting.append(item)
        self._arrived.set()

    def _on_heartbeat(self, headers: Mapping[str, str]) -> None:
        if int(headers.get("Nats-Last-Consumer", "0")) >= self._expected:
            self._break("gap")
        elif (stalled := headers.get("Nats-Consumer-Stalled")) and not self._waiting:
            self._put(stalled.encode())


def _nothing() -> None:
    pass


def _consumer(
    name: str, inbox: str, filters: Sequence[str], position: int | datetime
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "name": name,
        "deliver_subject": inbox,
        "ack_policy": "none",
        "max_deliver": 1,
        "flow_control": True,
        "idle_heartbeat": int(_HEARTBEAT * _SECOND),
        "inactive_threshold": 30 * _SECOND,
        "mem_storage": True,
        "num_replicas": 1,
        "replay_policy": "instant",
    }
    if isinstance(position, datetime):
        config["deliver_policy"] = "by_start_time"
        config["opt_start_time"] = position.astimezone(UTC).isoformat().replace("+00:00", "Z")
    else:
        config["deliver_policy"] = "by_start_sequence"
        config["opt_start_seq"] = position
    if len(filters) == 1:
        config["filter_subject"] = filters[0]
    elif filters:
        config["filter_subjects"] = list(filters)
    return config


def _read(raw: RawMessage) -> StreamMessage:
    headers = raw.headers()
    seconds, rest = divmod(raw.nanoseconds, _SECOND)
    return StreamMessage(
        subject=raw.subject.decode(),
        sequence=raw.sequence,
        time=datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=rest // 1000),
        type=headers.get(TYPE, ""),
        payload=raw.payload,
        headers=headers,
        pending=raw.pending,
    )
