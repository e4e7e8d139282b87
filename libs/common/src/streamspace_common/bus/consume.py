"""Consuming a durable: `PullLoop` hands deliveries to a handler and settles each once.

What a handler does is what becomes of its delivery: it returns and the delivery is
acknowledged (and the server's confirmation awaited); it raises `Retry` and comes back
after a pause; it raises `Reject` and is terminated with the reason; any other
exception is logged and treated as a retry. On the last try `on_given_up` runs first.

Deliveries of one key are handled one after the other in the order they came, those of
different keys side by side, `concurrency` keys at most. Only what there is room for is
pulled, so that nothing waits here that a replica could work on. While a delivery is
held, the server is told so every third of `ack_wait`, however long the work takes.

Acknowledgement is not "exactly once": after a crash, or a lost confirmation, a message
comes again. Handlers have to bear that.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from nats.aio.msg import Msg

from streamspace_common.bus.connection import Bus
from streamspace_common.bus.envelope import TYPE, carried
from streamspace_common.bus.errors import BusError
from streamspace_common.bus.pulling import Puller
from streamspace_common.bus.settling import settle
from streamspace_common.contracts.streams import Durable
from streamspace_common.runtime.tracing import Kind, Span, span

log = structlog.get_logger(__name__)

_REASON_LENGTH = 200
_ACK, _NAK, _TERM, _IN_PROGRESS = b"+ACK", b"-NAK", b"+TERM", b"+WPI"


class Retry(Exception):  # noqa: N818 - an outcome a handler chooses, not an error
    """Deliver again after `delay` seconds; None for what the retry policy says."""

    def __init__(self, delay: float | None = None, reason: str = "") -> None:
        super().__init__(reason or "the handler asked for a retry")
        self.delay = delay


class Reject(Exception):  # noqa: N818 - an outcome a handler chooses, not an error
    """Never deliver again; `reason` is kept in the server's advisory."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class RetryPolicy:
    """Pauses before the next delivery: `first` seconds, doubled each time, never over `limit`.

    Jitter takes up to that share off, so that what failed together does not come back
    together.
    """

    first: float = 5.0
    limit: float = 300.0
    jitter: float = 0.1

    def delay(self, deliveries: int) -> float:
        """Seconds to wait after the delivery numbered `deliveries`, the first being 1."""
        longest = min(self.first * 2.0 ** min(deliveries - 1, 30), self.limit)
        return longest * (1 - random.random() * self.jitter)


@dataclass(frozen=True)
class Delivery:
    """One try at one message.

    `deliveries` counts from 1; `last_try` says that the server will not try again.
    """

    subject: str
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    sequence: int = 1
    deliveries: int = 1
    last_try: bool = False
    stream_time: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def type(self) -> str:
        """The `ce-type` header, empty where there is none."""
        return self.headers.get(TYPE, "")


@dataclass
class _Held:
    """A delivery in our hands; `reply` is where its newest try is settled."""

    delivery: Delivery
    reply: str


Handle = Callable[[Delivery], Awaitable[None]]
GivenUp = Callable[[Delivery, BaseException], Awaitable[None]]


class PullLoop:
    """Consumes one durable until it is drained.

    Args:
        bus: the connection; needs rights to pull and settle on this durable only.
        durable: what to consume. It may not exist yet; then the loop waits for it.
        handle: called with each delivery; its outcome settles it.
        key: deliveries with equal keys never run side by side.
        concurrency: how many keys may be worked on at once.
        retry: pauses between tries.
        on_given_up: called on the last failed try before the message is terminated,
            and again until it succeeds.
        on_newer: called at once when a delivery arrives whose key is being worked on,
            so that the running work can be cut short; must not block.
    """

    def __init__(
        self,
        bus: Bus,
        durable: Durable,
        handle: Handle,
        *,
        key: Callable[[Delivery], str],
        concurrency: int,
        retry: RetryPolicy = RetryPolicy(),
        on_given_up: GivenUp | None = None,
        on_newer: Callable[[Delivery], None] | None = None,
    ) -> None:
        self._link = bus.link
        self._durable = durable
        self._handle = handle
        self._key = key
        self._concurrency = concurrency
        self._retry = retry
        self._on_given_up = on_given_up
        self._on_newer = on_newer
        self._held: dict[int, _Held] = {}
        self._queues: dict[str, deque[_Held]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(concurrency)
        self._accepting = False
        self._draining = False
        self._drained = asyncio.Event()
        self._puller: Puller | None = None

    @property
    def held(self) -> int:
        """Deliveries in hand: being worked on, or waiting behind one of the same key."""
        return len(self._held)

    async def run(self) -> None:
        """Consume; returns only after `drain`.

        A cancellation cancels the handlers; what they held is delivered again.
        """
        self._accepting = True
        puller = self._puller = Puller(self._link, self._durable, self._arrived, self._wake.set)
        beat = asyncio.create_task(self._keep_alive(), name=f"keep-alive:{self._durable.name}")
        try:
            while not self._draining:
                self._wake.clear()
                await puller.request(self._room())
                await self._sleep_until(puller.next_look)
            await self._drained.wait()
        finally:
            self._accepting = False
            await puller.close()
            beat.cancel()
            await self._cancel_workers()
            await asyncio.gather(beat, return_exceptions=True)

    async def drain(self, timeout: float) -> None:
        """Pull no more, let running handlers finish, cancel them after `timeout` seconds.

        What was not begun is handed back at once, for a replica to take; what was cut
        short is left to be delivered again when its `ack_wait` is over.
        """
        self._accepting = False
        self._draining = True
        self._wake.set()
        try:
            if self._puller is not None:
                await self._puller.close()
            if self._workers:
                await asyncio.wait(set(self._workers), timeout=timeout)
            await self._cancel_workers()
        finally:
            self._drained.set()

    # Arriving.

    def _room(self) -> int:
        """How many more deliveries may be asked for.

        Each may turn out to need a worker of its own, so free workers are the limit;
        those that wait behind a busy key are bounded too.
        """
        return min(self._concurrency - len(self._queues), 2 * self._concurrency - len(self._held))

    async def _sleep_until(self, moment: float) -> None:
        try:
            async with asyncio.timeout_at(moment):
                await self._wake.wait()
        except TimeoutError:
            return

    def _arrived(self, message: Msg) -> None:
        sequence = message.metadata.sequence.stream
        if again := self._held.get(sequence):
            # Delivered again although we still hold it: beats were lost on the way.
            again.reply = message.reply
            return
        if not self._accepting:
            self._start(self._hand_back(message.reply))
            return
        delivery = self._delivery(message)
        held = self._held[sequence] = _Held(delivery, message.reply)
        key = self._key_of(delivery)
        waiting = self._queues.get(key)
        if waiting is None:
            self._queues[key] = deque([held])
            self._start(self._work(key))
            return
        waiting.append(held)
        self._tell_newer(delivery)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        worker = asyncio.create_task(work, name=f"deliveries:{self._durable.name}")
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    def _delivery(self, message: Msg) -> Delivery:
        metadata = message.metadata
        limit = self._durable.max_deliver
        return Delivery(
            subject=message.subject,
            payload=message.data,
            headers=message.headers or {},
            sequence=metadata.sequence.stream,
            deliveries=metadata.num_delivered,
            last_try=0 < limit <= metadata.num_delivered,
            stream_time=metadata.timestamp,
        )

    def _key_of(self, delivery: Delivery) -> str:
        try:
            return self._key(delivery)
        except Exception:
            # The handler will meet the same oddity and say what to do about it.
            log.exception("bus.no_key", subject=delivery.subject)
            return delivery.subject

    def _tell_newer(self, delivery: Delivery) -> None:
        if self._on_newer is None:
            return
        try:
            self._on_newer(delivery)
        except Exception:
            log.exception("bus.on_newer_failed", subject=delivery.subject)

    # Working.

    async def _work(self, key: str) -> None:
        queue = self._queues[key]
        try:
            while queue:
                async with self._slots:
                    await self._take(queue.popleft())
        finally:
            for left in queue:
                del self._held[left.delivery.sequence]
            del self._queues[key]
            self._wake.set()

    async def _take(self, held: _Held) -> None:
        try:
            if not self._accepting:
                await self._hand_back(held.reply)
                return
            delivery = held.delivery
            with carried(delivery.headers), self._span(delivery) as traced:
                outcome = await self._outcome(delivery)
                if outcome != _ACK:
                    traced.fail(outcome.decode("ascii", "replace"))
                await settle(self._link, lambda: held.reply, outcome, delivery.subject)
        finally:
            del self._held[held.delivery.sequence]

    def _span(self, delivery: Delivery) -> AbstractContextManager[Span]:
        return span(
            f"process {delivery.type or self._durable.stream}",
            Kind.CONSUMER,
            consumer=self._durable.name,
            subject=delivery.subject,
            deliveries=delivery.deliveries,
        )

    async def _outcome(self, delivery: Delivery) -> bytes:
        """Run the handler; the settlement its end asks for, as the server wants it."""
        delay = None
        try:
            await self._handle(delivery)
        except Reject as outcome:
            return _terminate(outcome.reason)
        except Retry as outcome:
            error: BaseException = outcome
            delay = outcome.delay
        except asyncio.CancelledError as outcome:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            error = outcome  # Something inside was cancelled, not this loop.
        except Exception as outcome:
            log.exception(
                "bus.delivery_failed",
                subject=delivery.subject,
                deliveries=delivery.deliveries,
                last_try=delivery.last_try,
            )
            error = outcome
        else:
            return _ACK
        if delivery.last_try:
            await self._give_up(delivery, error)
            return _terminate(f"gave up after {delivery.deliveries} tries: {error}")
        pause = self._retry.delay(delivery.deliveries) if delay is None else delay
        return _NAK + b' {"delay": %d}' % max(1, int(pause * 1e9))

    async def _give_up(self, delivery: Delivery, error: BaseException) -> None:
        log.error("bus.delivery_given_up", subject=delivery.subject, error=str(error))
        if self._on_given_up is None:
            return
        tries = 0
        while True:
            tries += 1
            try:
                await self._on_given_up(delivery, error)
            except Exception:
                log.exception("bus.given_up_failed", subject=delivery.subject)
                await asyncio.sleep(self._retry.delay(tries))
            else:
                return

    async def _hand_back(self, reply: str) -> None:
        """Say that somebody else should have it now."""
        try:
            await self._link.publish(reply, _NAK)
        except BusError as error:
            log.debug("bus.not_handed_back", error=str(error))

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._durable.ack_wait.total_seconds() / 3)
            for held in tuple(self._held.values()):
                try:
                    await self._link.publish(held.reply, _IN_PROGRESS)
                except BusError:
                    break

    async def _cancel_workers(self) -> None:
        workers = tuple(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _terminate(reason: str) -> bytes:
    one_line = " ".join(reason.split())[:_REASON_LENGTH]
    return _TERM + b" " + one_line.encode()
