"""Reading a stream in order and without gaps, whatever the server does meanwhile."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

import structlog

from streamspace_common.bus import Bus, BusUnavailableError, StartAt, StreamMessage, provision
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually


async def publish(bus: Bus, kind: str, payload: bytes = b"{}") -> int:
    return (await bus.publish(f"evt.lab.session.s1.{kind}", payload, {}, timeout=30)).sequence


async def take(bus: Bus, count: int, start: StartAt, *filters: str) -> list[StreamMessage]:
    taken = []
    async with aclosing(bus.tail(EVENTS.name, filters or ["evt.>"], start=start)) as messages:
        async for message in messages:
            taken.append(message)
            if len(taken) == count:
                break
    return taken


async def consumers(bus: Bus) -> int:
    info = await bus.link.api(f"STREAM.INFO.{EVENTS.name}")
    return int(info["state"]["consumer_count"])


async def test_everything_is_read_in_order(bus: Bus) -> None:
    for n in range(50):
        await publish(bus, f"k{n}")
    taken = await take(bus, 50, StartAt.all())
    assert [m.sequence for m in taken] == list(range(1, 51))
    assert [m.subject.rpartition(".")[2] for m in taken] == [f"k{n}" for n in range(50)]
    assert taken[0].time <= taken[-1].time <= datetime.now(UTC)


async def test_reading_begins_at_a_sequence(bus: Bus) -> None:
    for n in range(10):
        await publish(bus, f"k{n}")
    assert [m.sequence for m in await take(bus, 3, StartAt.sequence(8))] == [8, 9, 10]
    assert [m.sequence for m in await take(bus, 1, StartAt.sequence(0))] == [1]


async def test_reading_begins_at_a_moment(bus: Bus) -> None:
    await publish(bus, "before")
    stored = (await take(bus, 1, StartAt.all()))[0].time
    await eventually(lambda: datetime.now(UTC) > stored)
    moment = datetime.now(UTC)
    await publish(bus, "after")
    assert [m.sequence for m in await take(bus, 1, StartAt.time(moment))] == [2]


async def test_new_means_nothing_older(bus: Bus) -> None:
    await publish(bus, "old")
    async with aclosing(bus.tail(EVENTS.name, ["evt.>"], start=StartAt.new())) as messages:
        reading = asyncio.ensure_future(anext(messages))
        before = await consumers(bus)
        await eventually(lambda: _more(bus, before - 1))
        sequence = await publish(bus, "new")
        assert (await reading).sequence == sequence


async def _more(bus: Bus, than: int) -> bool:
    return await consumers(bus) > than


async def test_several_filters_select(bus: Bus) -> None:
    for kind in ("a", "b", "c", "a"):
        await publish(bus, kind)
    taken = await take(bus, 3, StartAt.all(), "evt.*.*.*.a", "evt.*.*.*.c")
    assert [m.sequence for m in taken] == [1, 3, 4]


async def test_no_message_is_missed_or_doubled_over_restarts(
    bus: Bus, nats_server: NatsServer
) -> None:
    taken: list[int] = []
    total = 400

    async def read() -> None:
        async with aclosing(bus.tail(EVENTS.name, ["evt.>"], start=StartAt.all())) as messages:
            async for message in messages:
                taken.append(message.sequence)
                if len(taken) == total:
                    return

    async def write() -> None:
        written = 0
        while written < total:
            try:
                await bus.publish(
                    "evt.lab.session.s1.kind", b"{}", {"Nats-Msg-Id": f"m{written}"}, timeout=30
                )
            except BusUnavailableError:
                continue
            written += 1

    reading, writing = asyncio.create_task(read()), asyncio.create_task(write())
    for part in range(1, 4):
        await eventually(lambda: len(taken) >= part * 80, timeout=30)  # noqa: B023
        nats_server.restart(kill=part % 2 == 0)
    await writing
    await reading
    assert taken == list(range(1, total + 1))


async def test_a_consumer_that_vanishes_is_replaced(bus: Bus) -> None:
    await publish(bus, "one")
    async with aclosing(bus.tail(EVENTS.name, ["evt.>"], start=StartAt.all())) as messages:
        assert (await anext(messages)).sequence == 1
        names = (await bus.link.api(f"CONSUMER.NAMES.{EVENTS.name}"))["consumers"]
        for name in names:
            if name.startswith("tail-"):
                await bus.link.api(f"CONSUMER.DELETE.{EVENTS.name}.{name}")
        await publish(bus, "two")
        assert (await anext(messages)).sequence == 2


async def test_a_slow_reader_gets_everything_in_the_end(bus: Bus) -> None:
    total, at_once = 300, 20
    payload = b"x" * 100_000
    async with aclosing(bus.tail(EVENTS.name, ["evt.>"], start=StartAt.all())) as messages:
        await publish(bus, "first")
        assert (await anext(messages)).sequence == 1
        # 30 MB that nobody takes for now.
        for _ in range(total // at_once):
            await asyncio.gather(*(publish(bus, "more", payload) for _ in range(at_once)))
        got = [(await anext(messages)).sequence for _ in range(total)]
    assert got == list(range(2, total + 2))


async def test_a_missing_stream_is_waited_for(nats_server: NatsServer) -> None:
    bus = await Bus.connect(nats_server.url, name="early")
    with structlog.testing.capture_logs() as logs:
        async with aclosing(bus.tail(EVENTS.name, ["evt.>"], start=StartAt.all())) as messages:
            reading = asyncio.ensure_future(anext(messages))
            await eventually(lambda: any(line["event"] == "bus.tail_waits" for line in logs))
            await provision(bus)
            await publish(bus, "one")
            assert (await reading).sequence == 1
    assert [line["event"] for line in logs].count("bus.tail_waits") == 1
    await bus.close()


async def test_a_position_past_the_end_reads_what_comes(bus: Bus) -> None:
    await publish(bus, "one")
    async with aclosing(bus.tail(EVENTS.name, ["evt.>"], start=StartAt.sequence(99))) as messages:
        reading = asyncio.ensure_future(anext(messages))
        before = await consumers(bus)
        await eventually(lambda: _more(bus, before - 1))
        sequence = await publish(bus, "two")
        assert (await reading).sequence == sequence == 2


async def test_a_closed_reader_leaves_no_consumer_behind(bus: Bus) -> None:
    before = await consumers(bus)
    await publish(bus, "one")
    await take(bus, 1, StartAt.all())

    async def gone() -> bool:
        return await consumers(bus) == before

    await eventually(gone)


async def test_a_reader_is_cancelled_cleanly(bus: Bus) -> None:
    async def read() -> None:
        async for _ in bus.tail(EVENTS.name, ["evt.>"], start=StartAt.new()):
            pass

    reading = asyncio.create_task(read())
    before = await consumers(bus)
    await eventually(lambda: _more(bus, before - 1))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert reading.cancelled()
