"""`PullLoop` against a real server: order, settlement, long work, restarts, leaving."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
import structlog

from streamspace_common.bus import (
    Bus,
    BusUnavailableError,
    Delivery,
    PullLoop,
    Reject,
    Retry,
    RetryPolicy,
    StreamMessage,
    ensure_durable,
)
from streamspace_common.bus.subscriptions import CoreMessage
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.contracts.streams import COMMANDS, Durable, agent_durable
from streamspace_common.contracts.subjects import command
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually

LAB = ClusterId("lab")
QUICK = RetryPolicy(first=0.05, limit=0.2)
Handle = Callable[[Delivery], Awaitable[None]]


def durable(**changes: object) -> Durable:
    return replace(agent_durable(LAB), **changes)  # type: ignore[arg-type]


def session_of(delivery: Delivery) -> str:
    return delivery.subject.rpartition(".")[2]


async def send(bus: Bus, session: str, payload: bytes = b"{}") -> int:
    return (await bus.publish(command(LAB, SessionId(session)), payload, {})).sequence


@asynccontextmanager
async def consuming(
    bus: Bus, handle: Handle, of: Durable | None = None, **options: object
) -> AsyncIterator[PullLoop]:
    """A loop that runs inside the block and is drained after it."""
    wanted = of or durable()
    settings: dict[str, object] = {"key": session_of, "concurrency": 8, "retry": QUICK, **options}
    loop = PullLoop(bus, wanted, handle, **settings)  # type: ignore[arg-type]
    running = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        await loop.drain(5)
        await running


async def settled(bus: Bus, of: Durable | None = None) -> bool:
    lag = await bus.consumer_lag(COMMANDS.name, (of or durable()).name)
    return lag.pending == lag.ack_pending == 0


async def test_deliveries_of_one_key_are_handled_in_order_and_one_at_a_time(bus: Bus) -> None:
    of = Durable(name="by-session", stream="EVENTS", filters=("evt.lab.session.>",))  # type: ignore[arg-type]
    await ensure_durable(bus, of)
    running: Counter[str] = Counter()
    orders: dict[str, list[int]] = defaultdict(list)
    most = 0

    def session(delivery: Delivery) -> str:
        return delivery.subject.split(".")[3]

    async def handle(delivery: Delivery) -> None:
        nonlocal most
        key = session(delivery)
        running[key] += 1
        most = max(most, sum(running.values()))
        assert running[key] == 1
        await asyncio.sleep(0)
        orders[key].append(delivery.sequence)
        running[key] -= 1

    total = 600
    await asyncio.gather(
        *(bus.publish(f"evt.lab.session.s{n % 7}.kind", b"{}", {}) for n in range(total))
    )
    async with consuming(bus, handle, of, key=session, concurrency=4):
        await eventually(lambda: sum(map(len, orders.values())) == total)
    assert all(order == sorted(order) for order in orders.values())
    assert len(orders) == 7
    assert 1 < most <= 4
    lag = await bus.consumer_lag("EVENTS", of.name)
    assert (lag.pending, lag.ack_pending, lag.redelivered) == (0, 0, 0)


async def test_no_more_is_taken_than_there_is_room_for(bus: Bus) -> None:
    await ensure_durable(bus, durable())
    release = asyncio.Event()
    begun: list[str] = []

    async def handle(delivery: Delivery) -> None:
        begun.append(session_of(delivery))
        await release.wait()

    for n in range(10):
        await send(bus, f"s{n}")
    async with consuming(bus, handle, concurrency=3) as loop:
        await eventually(lambda: len(begun) == 3)
        # A replica finds the rest still to be had.
        async with consuming(bus, handle, concurrency=7):
            await eventually(lambda: len(begun) == 10)
            assert loop.held == 3
            release.set()
    assert sorted(begun) == [f"s{n}" for n in range(10)]
    assert await settled(bus)


async def test_a_retry_comes_back_after_its_pause_and_counts_deliveries(bus: Bus) -> None:
    await ensure_durable(bus, durable())
    tries: list[int] = []

    async def handle(delivery: Delivery) -> None:
        tries.append(delivery.deliveries)
        if delivery.deliveries == 1:
            raise Retry(0.02)
        if delivery.deliveries == 2:
            raise Retry
        if delivery.deliveries == 3:
            raise ValueError("an unexpected one")

    await send(bus, "s1")
    with structlog.testing.capture_logs() as logs:
        async with consuming(bus, handle):
            await eventually(lambda: tries == [1, 2, 3, 4])
    assert await settled(bus)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "bus.delivery_failed"
    ]


async def test_a_rejected_delivery_is_terminated_with_its_reason(bus: Bus) -> None:
    await ensure_durable(bus, durable())
    advisories: list[bytes] = []

    async def note(message: CoreMessage) -> None:
        advisories.append(message.payload)

    async def handle(delivery: Delivery) -> None:
        raise Reject("the payload is\nno command")

    await bus.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.COMMANDS.>", note)
    await send(bus, "s1")
    async with consuming(bus, handle):
        await eventually(lambda: len(advisories) == 1)
        assert await settled(bus)
    assert b"the payload is no command" in advisories[0]


async def test_the_last_failure_is_reported_before_the_delivery_is_terminated(bus: Bus) -> None:
    of = durable(max_deliver=3)
    await ensure_durable(bus, of)
    told: list[tuple[int, str]] = []
    lasts: list[bool] = []

    async def handle(delivery: Delivery) -> None:
        lasts.append(delivery.last_try)
        raise RuntimeError("no such cluster")

    async def given_up(delivery: Delivery, error: BaseException) -> None:
        told.append((delivery.deliveries, str(error)))
        if len(told) < 3:
            raise BusUnavailableError("not right now")

    await send(bus, "s1")
    async with consuming(bus, handle, of, on_given_up=given_up):
        await eventually(lambda: len(told) == 3)
        await eventually(lambda: settled(bus))
    assert told == [(3, "no such cluster")] * 3
    assert lasts == [False, False, True]


async def test_long_work_is_kept_alive_and_not_delivered_twice(bus: Bus) -> None:
    of = durable(ack_wait=timedelta(seconds=0.6))
    await ensure_durable(bus, of)
    tries: list[int] = []
    done = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        tries.append(delivery.deliveries)
        await asyncio.sleep(2)  # More than three times the server's patience.
        done.set()

    await send(bus, "s1")
    await send(bus, "s2")
    async with consuming(bus, handle, of, concurrency=2):
        await done.wait()
        await eventually(lambda: settled(bus))
    assert tries == [1, 1]


async def test_what_waits_behind_a_busy_key_is_kept_alive_too(bus: Bus) -> None:
    of = Durable(
        name="by-session",
        stream="EVENTS",
        filters=("evt.lab.session.>",),  # type: ignore[arg-type]
        ack_wait=timedelta(seconds=0.6),
    )
    await ensure_durable(bus, of)
    tries: list[int] = []

    async def handle(delivery: Delivery) -> None:
        tries.append(delivery.deliveries)
        await asyncio.sleep(0.7)

    for _ in range(3):
        await bus.publish("evt.lab.session.s1.kind", b"{}", {})
    async with consuming(bus, handle, of, key=lambda _: "same"):
        await eventually(lambda: len(tries) == 3)
    assert tries == [1, 1, 1]


async def test_running_work_hears_of_a_newer_command_at_once(bus: Bus) -> None:
    await ensure_durable(bus, durable())
    superseded = asyncio.Event()
    began = asyncio.Event()
    handled: list[bytes] = []

    async def handle(delivery: Delivery) -> None:
        began.set()
        if delivery.payload == b"start":
            await superseded.wait()
        handled.append(delivery.payload)

    def newer(delivery: Delivery) -> None:
        assert delivery.payload == b"stop"
        superseded.set()

    await send(bus, "s1", b"start")
    async with consuming(bus, handle, on_newer=newer):
        await began.wait()
        await send(bus, "s1", b"stop")
        await eventually(lambda: handled == [b"start", b"stop"])
        await eventually(lambda: settled(bus))


async def test_it_waits_for_a_durable_that_does_not_exist_yet(bus: Bus) -> None:
    handled: list[int] = []

    async def handle(delivery: Delivery) -> None:
        handled.append(delivery.sequence)

    with structlog.testing.capture_logs() as logs:
        async with consuming(bus, handle):
            await send(bus, "s1")
            await eventually(lambda: any(line["event"] == "bus.cannot_pull" for line in logs))
            await ensure_durable(bus, durable())
            await eventually(lambda: handled == [1])
    assert [line["event"] for line in logs].count("bus.cannot_pull") == 1


async def test_it_goes_on_when_its_durable_was_deleted_and_made_anew(bus: Bus) -> None:
    await ensure_durable(bus, durable())
    handled: list[int] = []

    async def handle(delivery: Delivery) -> None:
        handled.append(delivery.sequence)

    async with consuming(bus, handle):
        await send(bus, "s1")
        await eventually(lambda: handled == [1])
        await bus.link.api(f"CONSUMER.DELETE.{COMMANDS.name}.{durable().name}")
        await send(bus, "s2")
        await ensure_durable(bus, durable())
        await eventually(lambda: 2 in handled)


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "stopped"])
async def test_work_goes_on_over_a_restart_of_the_server(
    bus: Bus, nats_server: NatsServer, kill: bool
) -> None:
    await ensure_durable(bus, durable())
    handled: Counter[str] = Counter()
    release = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        if session_of(delivery) == "held":
            await release.wait()
        handled[session_of(delivery)] += 1

    async with consuming(bus, handle):
        await send(bus, "held")
        await send(bus, "before")
        await eventually(lambda: handled["before"] == 1)
        nats_server.restart(kill=kill)
        await bus.publish(command(LAB, SessionId("after")), b"{}", {"Nats-Msg-Id": "after"})
        await eventually(lambda: handled["after"] == 1)
        release.set()
        await eventually(lambda: handled["held"] >= 1)
        await eventually(lambda: settled(bus))


async def test_many_restarts_under_load_lose_nothing(bus: Bus, nats_server: NatsServer) -> None:
    of = Durable(name="all-events", stream="EVENTS", filters=("evt.>",), max_deliver=-1)  # type: ignore[arg-type]
    await ensure_durable(bus, of)
    handled: set[str] = set()
    total = 300

    async def handle(delivery: Delivery) -> None:
        handled.add(delivery.headers["Nats-Msg-Id"])

    async def publish(number: int) -> None:
        headers = {"Nats-Msg-Id": f"m{number}"}
        while True:
            try:
                await bus.publish(f"evt.lab.session.s{number}.kind", b"{}", headers)
            except BusUnavailableError:
                assert not bus.link.client.is_closed
                await asyncio.sleep(0.01)
            else:
                return

    async def publish_all() -> None:
        for number in range(total):
            await publish(number)

    async with consuming(bus, handle, of, key=lambda d: d.subject):
        publishing = asyncio.create_task(publish_all())
        for part in range(1, 4):
            await eventually(lambda: len(handled) >= part * 60, timeout=30)  # noqa: B023
            nats_server.restart(kill=True)
        await publishing
        await eventually(lambda: len(handled) == total, timeout=60)


async def test_a_server_that_hangs_and_comes_back_is_pulled_from_again(
    bus: Bus, nats_server: NatsServer
) -> None:
    await ensure_durable(bus, durable())
    handled: list[str] = []

    async def handle(delivery: Delivery) -> None:
        handled.append(session_of(delivery))

    async with consuming(bus, handle) as loop:
        await send(bus, "s1")
        await eventually(lambda: handled == ["s1"])
        nats_server.pause()
        try:
            with structlog.testing.capture_logs() as logs:
                await eventually(
                    lambda: any(line["event"] == "bus.cannot_pull" for line in logs), timeout=15
                )
        finally:
            nats_server.resume()
        await send(bus, "s2")
        await eventually(lambda: handled == ["s1", "s2"])
        await eventually(lambda: loop.held == 0)


async def test_a_drain_lets_running_work_finish_and_leaves_the_rest(bus: Bus) -> None:
    of = durable(ack_wait=timedelta(seconds=1))
    await ensure_durable(bus, of)
    release, began = asyncio.Event(), asyncio.Event()
    handled: list[str] = []

    async def handle(delivery: Delivery) -> None:
        began.set()
        await release.wait()
        handled.append(delivery.payload.decode())

    await send(bus, "s1", b"first")
    loop = PullLoop(bus, of, handle, key=session_of, concurrency=1)
    running = asyncio.create_task(loop.run())
    await began.wait()
    await send(bus, "s2", b"second")
    draining = asyncio.create_task(loop.drain(5))
    await asyncio.sleep(0)
    release.set()
    await draining
    await running
    assert handled == ["first"]
    async with consuming(bus, handle, of):
        await eventually(lambda: handled == ["first", "second"])


async def test_a_drain_that_runs_out_of_time_leaves_the_work_to_another(bus: Bus) -> None:
    of = durable(ack_wait=timedelta(seconds=1))
    await ensure_durable(bus, of)
    began = asyncio.Event()
    tries: list[int] = []

    async def for_ever(delivery: Delivery) -> None:
        began.set()
        await asyncio.Event().wait()

    async def handle(delivery: Delivery) -> None:
        tries.append(delivery.deliveries)

    await send(bus, "s1")
    loop = PullLoop(bus, of, for_ever, key=session_of, concurrency=1)
    running = asyncio.create_task(loop.run())
    await began.wait()
    await loop.drain(0.05)
    await running
    async with consuming(bus, handle, of):
        await eventually(lambda: tries == [2])


async def test_a_cancelled_loop_settles_nothing(bus: Bus) -> None:
    await ensure_durable(bus, durable())
    began = asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        began.set()
        await asyncio.Event().wait()

    await send(bus, "s1")
    loop = PullLoop(bus, durable(), handle, key=session_of, concurrency=1)
    running = asyncio.create_task(loop.run())
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    lag = await bus.consumer_lag(COMMANDS.name, durable().name)
    assert lag.ack_pending == 1
    assert loop.held == 0


async def test_a_handler_whose_inner_work_is_cancelled_is_retried(bus: Bus) -> None:
    await ensure_durable(bus, durable())
    tries: list[int] = []

    async def handle(delivery: Delivery) -> None:
        tries.append(delivery.deliveries)
        if delivery.deliveries == 1:
            inner = asyncio.create_task(asyncio.sleep(60))
            asyncio.get_running_loop().call_soon(inner.cancel)
            await inner

    await send(bus, "s1")
    async with consuming(bus, handle):
        await eventually(lambda: tries == [1, 2])


async def test_a_key_that_cannot_be_told_still_reaches_the_handler(bus: Bus) -> None:
    await ensure_durable(bus, durable())
    handled: list[str] = []

    async def handle(delivery: Delivery) -> None:
        handled.append(delivery.subject)

    def broken(delivery: Delivery) -> str:
        raise ValueError("odd")

    await send(bus, "s1")
    async with consuming(bus, handle, key=broken):
        await eventually(lambda: handled == ["cmd.lab.s1"])


async def test_the_newest_command_is_readable_until_it_is_purged(bus: Bus) -> None:
    assert await bus.newest_command(LAB, SessionId("s1")) is None
    await send(bus, "s1", b"old")
    sent = await bus.publish(command(LAB, SessionId("s1")), b"new", {"ce-type": "kind.v1"})
    newest = await bus.newest_command(LAB, SessionId("s1"))
    assert isinstance(newest, StreamMessage)
    assert (newest.payload, newest.sequence, newest.type) == (b"new", sent.sequence, "kind.v1")
    assert newest.time.tzinfo is not None
    assert await bus.purge_commands(LAB, SessionId("s1")) == 1
    assert await bus.newest_command(LAB, SessionId("s1")) is None
