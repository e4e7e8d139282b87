"""Legs and the pump, without a network: what is kept, held back, and how one end ends the other."""

import asyncio

import pytest

from streamspace_common.relay.keepalive import Keepalive
from streamspace_common.relay.pump import LOST, Ending, Leg, Pieces, Pump


class Transport:
    """What a leg sees of a connection."""

    def __init__(self) -> None:
        self.unsent = 0
        self.paused = False
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert high > low > 0

    def get_extra_info(self, name: str) -> None:
        return None

    def is_reading(self) -> bool:
        return not self.paused

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True


class MemoryLeg(Leg):
    """A leg whose other end is the test."""

    def __init__(self, *, early_limit: int = 100) -> None:
        super().__init__(early_limit=early_limit)
        self.wire = Transport()
        self.sent = b""
        self.goodbye: tuple[int, str] | None = None
        self.pings = 0
        self._connected(self.wire)  # type: ignore[arg-type]

    def write_all(self, pieces: Pieces) -> None:
        self.sent += b"".join(pieces)

    def _say_goodbye(self, code: int, reason: str) -> None:
        self.goodbye = (code, reason)

    def ping(self) -> None:
        self.pings += 1

    def receive(self, data: bytes) -> None:
        self._deliver((data,), len(data))

    def end(self, code: int = LOST, reason: str = "") -> None:
        self._ended(Ending(code, reason))


async def test_what_comes_early_is_kept_and_goes_first() -> None:
    left, right = MemoryLeg(), MemoryLeg()
    left.receive(b"one ")
    right.receive(b"banner")
    left.receive(b"two")
    Pump(left, right)
    left.receive(b" three")
    assert right.sent == b"one two three"
    assert left.sent == b"banner"
    assert (left.received, right.received) == (13, 6)


async def test_too_much_early_stops_the_reading_until_there_is_a_peer() -> None:
    left, right = MemoryLeg(early_limit=10), MemoryLeg()
    left.receive(bytes(9))
    assert left.reading
    left.receive(bytes(1))
    assert not left.reading
    Pump(left, right)
    assert left.reading


async def test_a_full_leg_stops_its_peer_and_only_that() -> None:
    left, right = MemoryLeg(), MemoryLeg()
    Pump(left, right)
    left.pause_writing()
    assert not right.reading
    assert left.reading
    left.resume_writing()
    assert right.reading


async def test_the_end_of_one_is_the_end_of_the_other() -> None:
    left, right = MemoryLeg(), MemoryLeg()
    pump = Pump(left, right)
    left.end(4410, "gone")
    assert right.goodbye == (4410, "gone")
    assert await pump.wait_ended() == Ending(4410, "gone")
    right.end()
    assert right.ending == Ending(4410, "gone", local=True)


async def test_the_owner_may_choose_the_last_words_or_say_them_later() -> None:
    left, right = MemoryLeg(), MemoryLeg()
    Pump(left, right, explain=lambda leg, ending: (4502, "lost") if leg is right else None)
    left.end()
    assert right.goodbye is None
    left, right = MemoryLeg(), MemoryLeg()
    Pump(left, right, explain=lambda leg, ending: (4502, "lost") if leg is right else None)
    right.end()
    assert left.goodbye == (4502, "lost")


async def test_a_leg_that_has_ended_already_ends_its_peer_at_once() -> None:
    left, right = MemoryLeg(), MemoryLeg()
    told: list[Ending] = []
    left.on_ended = told.append
    left.end(1001, "left")
    pump = Pump(left, right)
    assert right.goodbye == (1001, "left")
    assert (await pump.wait_ended()).code == 1001
    assert len(told) == 1


async def test_own_hooks_are_still_called_and_once() -> None:
    left, right = MemoryLeg(), MemoryLeg()
    told: list[Ending] = []
    right.on_ended = told.append
    Pump(left, right)
    right.end(1000)
    right.end(1000)
    assert told == [Ending(1000)]


async def test_a_closing_leg_reads_on_but_nothing_goes_through() -> None:
    left, right = MemoryLeg(), MemoryLeg()
    Pump(left, right)
    left.pause_reading()
    left.close(4403, "no")
    left.receive(b"too late")
    assert left.reading
    assert right.sent == b""
    left.close(1000, "again")
    assert left.goodbye == (4403, "no")
    left.end()
    right.end()


async def test_a_leg_that_does_not_part_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamspace_common.relay.pump.CLOSE_GRACE", 0.01)
    leg = MemoryLeg()
    leg.close(1000, "")
    async with asyncio.timeout(5):
        while not leg.wire.aborted:
            await asyncio.sleep(0.001)


async def test_the_silent_are_asked_and_the_dead_are_cut() -> None:
    keepalive = Keepalive(interval=20, timeout=20)
    leg, now = MemoryLeg(), asyncio.get_running_loop().time()
    keepalive.watch(leg)
    keepalive.look(now + 10)
    assert leg.pings == 0
    keepalive.look(now + 21)
    assert leg.pings == 1
    leg.receive(b"here")
    keepalive.look(now + 40)
    keepalive.look(now + 61)
    assert (leg.pings, leg.wire.aborted) == (2, False)
    keepalive.look(now + 82)
    assert leg.wire.aborted


async def test_a_slow_one_and_one_held_back_are_not_dead() -> None:
    keepalive = Keepalive(interval=20, timeout=20)
    slow, held = MemoryLeg(), MemoryLeg()
    now = asyncio.get_running_loop().time()
    keepalive.watch(slow)
    keepalive.watch(held)
    held.pause_reading()
    for step in range(1, 20):
        slow.wire.unsent = 1000 - step
        keepalive.look(now + 10 * step)
    assert (slow.pings, held.pings) == (0, 0)
    assert not slow.wire.aborted
    assert not held.wire.aborted
