"""What happens to a batch when the bus is away, slow, or refuses one message."""

import asyncio
from collections.abc import Mapping

from streamspace_common.bus.errors import MessageTooLargeError
from streamspace_common.bus.publishing import Stored
from streamspace_common.contracts.headers import MESSAGE_ID
from streamspace_common.store.outbox_plan import Entry
from streamspace_common.store.outbox_publish import BatchPublisher
from streamspace_common.testing.publisher import MemoryPublisher


def event(id_: int, thing: str = "s1") -> Entry:
    subject = f"evt.core.session.{thing}.created"
    return Entry(id_, f"m{id_}", subject, {MESSAGE_ID: f"m{id_}"}, b"")


class PickyPublisher(MemoryPublisher):
    """Refuses one subject for good."""

    refused = ""

    async def publish(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str],
        *,
        expected_last_subject_sequence: int | None = None,
    ) -> Stored:
        if subject == self.refused:
            raise MessageTooLargeError(subject)
        return await super().publish(subject, payload, headers)


async def test_a_failed_message_holds_back_its_own_lane_only() -> None:
    bus = MemoryPublisher(connected=False)
    publisher = BatchPublisher(bus)
    outcome = await publisher.publish([event(1), event(2)])
    assert outcome.done == []
    assert bus.attempts == ["m1"], "the second one must not overtake the first"
    bus.connected = True
    outcome = await publisher.publish([event(1), event(2), event(3, "s2")])
    assert outcome.done == [3], "the first lane still waits"


async def test_a_lane_waits_longer_each_time_and_forgets_it_after_success() -> None:
    bus = MemoryPublisher(connected=False)
    publisher = BatchPublisher(bus)
    assert publisher.next_retry() == float("inf")
    waits = []
    for _ in range(3):
        await publisher.publish([event(1)])
        waits.append(publisher.next_retry())
        await asyncio.sleep(publisher.next_retry())
    assert waits == sorted(waits)
    assert waits[0] < 0.15
    bus.connected = True
    assert (await publisher.publish([event(1)])).done == [1]
    assert publisher.next_retry() == float("inf")


async def test_a_lane_whose_rows_are_gone_waits_for_nothing() -> None:
    publisher = BatchPublisher(MemoryPublisher(connected=False))
    await publisher.publish([event(1)])
    await publisher.publish([])
    assert publisher.next_retry() == float("inf")


async def test_a_message_that_can_never_be_stored_does_not_block_the_rest() -> None:
    bus = PickyPublisher()
    bus.refused = event(1).subject
    outcome = await BatchPublisher(bus).publish([event(1), event(2, "s2")])
    assert sorted(outcome.done) == [1, 2]
    assert bus.ids == ["m2"]
