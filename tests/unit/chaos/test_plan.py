"""The plan of faults: the same for the same seed, complete, and possible to carry out."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from tests.chaos.plan import Amounts, Kind, Targets, faults

TARGETS = Targets(
    processes=("nats", "postgres", "session-1", "session-2", "agent-a-1"),
    links=("session-1:nats", "session-1:postgres", "agent-a-1:nats"),
    disks=("nats",),
)
AMOUNTS = Amounts.around(12, disks=1)


def test_the_same_seed_gives_the_same_plan():
    assert faults("7", TARGETS, AMOUNTS, 60) == faults("7", TARGETS, AMOUNTS, 60)


def test_another_seed_gives_another_plan():
    assert faults("7", TARGETS, AMOUNTS, 60) != faults("8", TARGETS, AMOUNTS, 60)


@given(st.text(max_size=8), st.integers(0, 40), st.floats(1, 200))
def test_as_many_as_asked_for_and_none_of_a_target_beside_another(seed, kills, duration):
    amounts = Amounts.around(kills, disks=1)
    plan = faults(seed, TARGETS, amounts, duration)
    assert sum(fault.kind is Kind.KILL for fault in plan) == kills
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    for target in {fault.target for fault in plan}:
        mine = [fault for fault in plan if fault.target == target]
        for earlier, later in itertools.pairwise(mine):
            assert earlier.end < later.at


def test_every_process_is_killed_before_one_is_killed_again():
    plan = faults("1", TARGETS, Amounts(kill=len(TARGETS.processes)), 60)
    assert {fault.target for fault in plan} == set(TARGETS.processes)


def test_what_cannot_be_broken_is_left_out():
    plan = faults("1", Targets(("nats",)), Amounts.around(4, disks=1), 60)
    assert {fault.kind for fault in plan} == {Kind.KILL, Kind.PAUSE, Kind.RESTART}
