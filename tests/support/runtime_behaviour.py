"""What every runtime must do, whatever it runs sessions with.

A test module takes these tests over with `from tests.support.runtime_behaviour import *`
and offers the fixtures `installation` (see `tests.support.installation`) and `make_spec`.
"""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from tests.support.phases import Heard, ignore

from streamspace_agent.ports import SessionUnreachable, Superseded
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase
from streamspace_common.testing.waiting import eventually

S = SessionId("ada-terminal-00000001")


async def _state(installation: Any, session: SessionId = S) -> Any:
    observed = await installation.runtime.observe(session)
    return observed.state if observed else None


async def test_a_session_never_heard_of_is_not_observed(installation: Any) -> None:
    assert await installation.runtime.observe(S) is None
    assert await installation.runtime.inventory() == ()


async def test_a_start_ends_in_a_running_session_and_reports_its_phases_in_order(
    installation: Any, make_spec: Any
) -> None:
    heard = Heard()
    await installation.runtime.ensure_running(make_spec(), 1, heard)
    phases = heard.reached

    assert await _state(installation) is ResourceState.RUNNING
    assert phases[0] is Phase.SCHEDULED
    assert phases[-1] is Phase.READY
    assert phases == sorted(phases, key=list(Phase).index)


async def test_a_running_session_answers_viewers_on_its_own_port_only(
    installation: Any, make_spec: Any
) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)

    leg = await installation.runtime.dial(S, 5900)
    received = bytearray()
    leg.attach(leg, lambda pieces: received.extend(b"".join(pieces)))
    await eventually(lambda: bytes(received) == b"RFB 003.008\n")
    leg.abort()
    await eventually(lambda: leg.ending is not None)
    with pytest.raises(SessionUnreachable):
        await installation.runtime.dial(S, 22)


async def test_a_session_that_does_not_run_cannot_be_dialled(
    installation: Any, make_spec: Any
) -> None:
    with pytest.raises(SessionUnreachable):
        await installation.runtime.dial(S, 5900)
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    await installation.runtime.ensure_hibernated(make_spec(), 2)
    with pytest.raises(SessionUnreachable):
        await installation.runtime.dial(S, 5900)


async def test_starting_what_runs_changes_only_its_generation(
    installation: Any, make_spec: Any
) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    await installation.runtime.ensure_running(make_spec(), 5, ignore)

    observed = await installation.runtime.observe(S)
    assert (observed.generation, observed.state) == (5, ResourceState.RUNNING)


async def test_a_stop_leaves_nothing_but_the_generation(installation: Any, make_spec: Any) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    await installation.runtime.ensure_absent(S, 2, delete_home=False)

    observed = await installation.runtime.observe(S)
    assert (observed.generation, observed.state) == (2, None)
    assert await installation.runtime.inventory() == ()
    assert installation.remains() == []


async def test_a_second_stop_is_a_no_op(installation: Any, make_spec: Any) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    for _ in range(2):
        await installation.runtime.ensure_absent(S, 2, delete_home=False)
    assert await _state(installation) is None


async def test_a_late_older_start_never_starts(installation: Any, make_spec: Any) -> None:
    await installation.runtime.ensure_absent(S, 2, delete_home=False)
    with pytest.raises(Superseded) as refused:
        await installation.runtime.ensure_running(make_spec(), 1, ignore)

    assert refused.value.newer_generation == 2
    assert await _state(installation) is None
    assert installation.remains() == []


async def test_a_late_older_stop_does_not_end_a_newer_session(
    installation: Any, make_spec: Any
) -> None:
    await installation.runtime.ensure_running(make_spec(), 3, ignore)
    with pytest.raises(Superseded):
        await installation.runtime.ensure_absent(S, 2, delete_home=True)
    assert await _state(installation) is ResourceState.RUNNING


async def test_hibernation_keeps_the_session_in_the_inventory_without_anything_running(
    installation: Any, make_spec: Any
) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    await installation.runtime.ensure_hibernated(make_spec(), 2)

    (held,) = await installation.runtime.inventory()
    assert (held.generation, held.state) == (2, ResourceState.HIBERNATED)
    assert installation.remains() == []


async def test_a_hibernated_session_wakes(installation: Any, make_spec: Any) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    await installation.runtime.ensure_hibernated(make_spec(), 2)
    await installation.runtime.ensure_running(make_spec(), 3, ignore)
    assert await _state(installation) is ResourceState.RUNNING


async def test_a_start_overtaken_by_a_stop_of_another_replica_is_undone(
    installation: Any, make_spec: Any
) -> None:
    other = await installation.another()
    heard = Heard()
    starting = asyncio.create_task(installation.runtime.ensure_running(make_spec(), 1, heard))
    await heard.something.wait()
    stopping = asyncio.create_task(other.ensure_absent(S, 2, delete_home=False))

    with pytest.raises(Superseded):
        await starting
    await stopping
    assert await _state(installation) is None
    assert installation.remains() == []


async def test_a_cancelled_start_leaves_nothing(installation: Any, make_spec: Any) -> None:
    heard = Heard()
    starting = asyncio.create_task(installation.runtime.ensure_running(make_spec(), 1, heard))
    await heard.something.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert await _state(installation) is None
    assert installation.remains() == []


async def test_a_desktop_that_dies_is_seen_within_seconds_and_leaves_nothing_running(
    installation: Any, make_spec: Any
) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    async with aclosing(installation.runtime.watch()) as changes:
        await installation.kill(installation.runtime, S)
        async with asyncio.timeout(5):
            observed = await anext(changes)

    assert (observed.session_id, observed.state) == (S, ResourceState.DEAD)
    assert observed.death.message
    await eventually(lambda: installation.remains() == [])
    (held,) = await installation.runtime.inventory()
    assert held.state is ResourceState.DEAD


async def test_a_dead_session_can_be_removed_or_started_again(
    installation: Any, make_spec: Any
) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    await installation.kill(installation.runtime, S)

    async def is_dead() -> bool:
        return bool(await _state(installation) is ResourceState.DEAD)

    await eventually(is_dead)
    await installation.runtime.ensure_running(make_spec(), 2, ignore)
    assert await _state(installation) is ResourceState.RUNNING
    await installation.runtime.ensure_absent(S, 3, delete_home=False)
    assert await _state(installation) is None


async def test_a_later_agent_finds_what_an_earlier_one_left(
    installation: Any, make_spec: Any
) -> None:
    await installation.runtime.ensure_running(make_spec(), 4, ignore)
    later = await installation.another()

    (held,) = await later.inventory()
    assert (held.session_id, held.generation, held.state) == (S, 4, ResourceState.RUNNING)
    await later.ensure_absent(S, 5, delete_home=False)
    assert await _state(installation) is None
    assert installation.remains() == []


async def test_a_death_nobody_was_there_to_see_is_told_by_the_next_agent(
    installation: Any, make_spec: Any
) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    await installation.runtime.close(stop_sessions=False)
    await installation.kill(installation.runtime, S)
    later = await installation.another()

    async with aclosing(later.watch()) as changes, asyncio.timeout(5):
        observed = await anext(changes)
    assert (observed.session_id, observed.state) == (S, ResourceState.DEAD)


async def test_five_sessions_start_and_stop_at_once(installation: Any, make_spec: Any) -> None:
    sessions = [SessionId(f"ada-terminal-0000001{i}") for i in range(5)]
    await asyncio.gather(
        *(installation.runtime.ensure_running(make_spec(s), 1, ignore) for s in sessions)
    )
    held = await installation.runtime.inventory()
    assert {each.session_id for each in held} == set(sessions)
    assert {each.state for each in held} == {ResourceState.RUNNING}

    await asyncio.gather(
        *(installation.runtime.ensure_absent(s, 2, delete_home=False) for s in sessions)
    )
    assert await installation.runtime.inventory() == ()
    assert installation.remains() == []
