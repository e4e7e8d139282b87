"""Fifty people watch desktops whose every picture is numbered, while everything restarts.

Only what carries a stream may interrupt it: the relay replica that it goes through, and the
agent replica that reaches its session. What that costs is printed (`-s`), and recorded in
docs/reference/streams-under-restarts.md; no test asserts a time.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.chaos.streams.house import VIEWERS, House, figures, watched
from tests.support.ensemble import Ensemble
from tests.support.stack import ADMIN_PASSWORD, REPOSITORY
from tests.support.stamps import RETRY_PAUSES

from streamspace_embedded.ports import free_port

CONTROL_PLANE = ["gateway", "auth", "session", "catalog-sync", "nats-1", "postgres"]
RESTARTING, UNREACHABLE, LOST = 1012, 4502, 1006
pytestmark = pytest.mark.timeout(400)

UNLIMITED = {
    "STREAMSPACE_ADMIN_PASSWORD": ADMIN_PASSWORD,
    "STREAMSPACE_GATEWAY_CREATE_RATE": "100000/minute",
    "STREAMSPACE_GATEWAY_CONNECT_RATE": "100000/minute",
    "STREAMSPACE_SESSION_QUOTA_SESSIONS": "0",
    "STREAMSPACE_SESSION_QUOTA_CPU": "0",
    "STREAMSPACE_SESSION_QUOTA_MEMORY": "0",
    "STREAMSPACE_AGENT_MAX_SESSIONS": "1000",
    "STREAMSPACE_AGENT_CPU": "10000",
    "STREAMSPACE_AGENT_MEMORY": "10Ti",
    "STREAMSPACE_VNC_PROXY_UPGRADES_PER_MINUTE": "100000",
}


@pytest.fixture(scope="module")
def stream_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory, stream_port: int) -> Iterator[Ensemble]:
    """Two relays and two agents; everything else once."""
    data: Path = tmp_path_factory.mktemp("streams") / "data"
    running = Ensemble(
        data,
        relays=2,
        agents=2,
        settings={**UNLIMITED, "STREAMSPACE_AGENT_NULL_STREAM": f"127.0.0.1:{stream_port}"},
    )
    try:
        asyncio.run(running.start())
        yield running
    finally:
        asyncio.run(running.close())


@pytest.fixture
async def house(ensemble: Ensemble, stream_port: int) -> AsyncIterator[House]:
    """Fifty viewers, spread over both relays and both agents."""
    async with watched(ensemble, stream_port) as full:
        yield full


@pytest.fixture
async def one_way(ensemble: Ensemble, stream_port: int) -> AsyncIterator[House]:
    """Fifty viewers, all by relay 1 and agent 1: the others joined when all were watching."""
    for spare in ("relay-2", "agent-2"):
        await ensemble.end(spare)
    async with watched(ensemble, stream_port) as full:
        await ensemble.start_parts("relay-2", "agent-2")
        yield full


async def test_fifty_streams_miss_nothing_while_all_but_what_carries_them_restarts(
    one_way: House,
) -> None:
    bystanders = [*CONTROL_PLANE, "relay-2", "agent-2"]
    for part in bystanders:
        await one_way.ensemble.restart(part)
        await one_way.all_see_what_is_new()
        assert (one_way.faults, one_way.gaps) == ([], []), part
    # Now none of them has a last word, and for a while there is none of them at all.
    for part in bystanders:
        await one_way.ensemble.end(part, kill=True)
    await one_way.all_see_what_is_new(more=10)
    await one_way.ensemble.start_parts(*reversed(bystanders))
    await one_way.all_see_what_is_new()
    assert (one_way.faults, one_way.gaps) == ([], [])
    assert await one_way.states() == {"running"}


async def test_relays_restarted_one_after_another_lose_no_viewer(house: House) -> None:
    for part in ("relay-1", "relay-2"):
        await house.ensemble.restart(part)
        await house.all_see_what_is_new()
        print(figures(f"{part} restarted", house.gaps))
        # 4502: the viewer's own relay stayed, its tunnel went through the other one.
        assert {gap.code for gap in house.gaps} <= {RESTARTING, UNREACHABLE}
        assert RESTARTING in {gap.code for gap in house.gaps}
        assert len(house.gaps) <= VIEWERS
        # There is another replica, so nobody needs to try twice.
        assert {gap.attempts for gap in house.gaps} == {1}
        house.forget_gaps()
    assert house.faults == []
    assert await house.states() == {"running"}


async def test_a_relay_that_was_killed_loses_no_viewer(house: House) -> None:
    await house.ensemble.restart("relay-1", kill=True)
    await house.all_see_what_is_new()
    print(figures("relay-1 killed", house.gaps))
    assert {gap.code for gap in house.gaps} <= {LOST, UNREACHABLE}
    assert {gap.attempts for gap in house.gaps} == {1}
    assert house.faults == []
    assert await house.states() == {"running"}


async def test_the_only_relay_brings_its_viewers_back_when_it_returns(house: House) -> None:
    await house.ensemble.end("relay-2")
    await house.all_see_what_is_new()
    house.forget_gaps()
    await house.ensemble.restart("relay-1")
    await house.all_see_what_is_new()
    print(figures("the only relay restarted", house.gaps))
    await house.ensemble.start_parts("relay-2")
    assert {gap.code for gap in house.gaps} == {RESTARTING}
    assert len(house.gaps) == VIEWERS
    assert house.faults == []
    assert await house.states() == {"running"}


@pytest.mark.parametrize("kill", [False, True], ids=["restarted", "killed"])
async def test_an_agent_that_carries_streams_loses_no_viewer_when(house: House, kill: bool) -> None:
    await house.ensemble.restart("agent-1", kill=kill)
    await house.all_see_what_is_new()
    print(figures(f"agent-1 {'killed' if kill else 'restarted'}", house.gaps))
    assert {gap.code for gap in house.gaps} == {UNREACHABLE if kill else RESTARTING}
    assert len(house.gaps) <= VIEWERS
    assert {gap.attempts for gap in house.gaps} == {1}
    assert house.faults == []
    assert await house.states() == {"running"}


def test_viewers_here_come_back_as_soon_as_the_web_client_does() -> None:
    source = (REPOSITORY / "services/web/src/viewer/reconnect.ts").read_text()
    found = re.search(r"const PAUSES = \[([\d_, ]+)\]", source)
    assert found
    pauses = [int(word.replace("_", "")) for word in found[1].split(",")]
    assert pauses == [round(1000 * pause) for pause in RETRY_PAUSES]
