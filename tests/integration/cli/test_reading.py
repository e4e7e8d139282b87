"""Reading streams without a consumer: from a number, a time or now on, with a filter."""

import asyncio
from datetime import UTC, datetime

from streamspace_cli.ops.reading import Selection, cloud_event, decoded, read
from streamspace_common.bus import Bus, Streams


async def publish(bus: Bus, number: int) -> None:
    await bus.publish(
        f"evt.core.session.s{number % 2}.created",
        f'{{"number": {number}}}'.encode(),
        {"Nats-Msg-Id": f"m-{number}", "ce-id": f"m-{number}", "ce-type": "session.created.v1"},
    )


async def numbers(streams: Streams, selection: Selection) -> list[int]:
    found = read(streams, selection, follow=False)
    return [decoded(message)["payload"]["number"] async for message in found]


async def test_a_stream_is_read_from_a_number_or_a_time_to_its_end(
    session: Bus, ops: Streams
) -> None:
    for number in range(4):
        await publish(session, number)
    between = datetime.now(UTC)
    for number in range(4, 8):
        await publish(session, number)
    assert await numbers(ops, Selection("EVENTS", start=1)) == list(range(8))
    assert await numbers(ops, Selection("EVENTS", start=6)) == [5, 6, 7]
    assert await numbers(ops, Selection("EVENTS", start=between)) == [4, 5, 6, 7]
    assert await numbers(ops, Selection("EVENTS", start=1, until=between)) == [0, 1, 2, 3]
    odd = Selection("EVENTS", "evt.*.session.s1.*", start=between)
    assert await numbers(ops, odd) == [5, 7]
    assert await numbers(ops, Selection("EVENTS")) == []
    assert await numbers(ops, Selection("DLQ", start=1)) == []


async def test_following_shows_what_comes(session: Bus, ops: Streams) -> None:
    await publish(session, 0)
    following = read(ops, Selection("EVENTS"), follow=True, pause=0.01)
    coming = asyncio.ensure_future(anext(following))
    # What was there before is not shown, what comes once it reads is.
    number = 0
    while not coming.done():
        number += 1
        await publish(session, number)
        await asyncio.wait([coming], timeout=0.2)
    assert cloud_event(coming.result())["id"] != "m-0"
    await following.aclose()
