"""All of StreamSpace on a cluster of three NATS servers, of which one at a time goes away.

First each is killed at once and comes back, then each is upgraded as the how-to says: lame
duck mode, a new process, and the next one only when this one is healthy. Meanwhile people go
on: sessions start, sleep, wake and end, and somebody follows all events.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from tests.chaos.streams.lives import Workload, compare, working
from tests.support.ensemble import Ensemble
from tests.support.nats_cluster import NatsServer
from tests.support.stack import ADMIN_PASSWORD, Api, sign_in

from streamspace_common.bus import Bus
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.contracts.streams import STREAMS
from streamspace_common.testing.waiting import eventually

pytestmark = pytest.mark.timeout(400)
BUSES = ("nats-1", "nats-2", "nats-3")
UNLIMITED = {
    "STREAMSPACE_ADMIN_PASSWORD": ADMIN_PASSWORD,
    "STREAMSPACE_GATEWAY_CREATE_RATE": "100000/minute",
    "STREAMSPACE_SESSION_QUOTA_SESSIONS": "0",
    "STREAMSPACE_SESSION_QUOTA_CPU": "0",
    "STREAMSPACE_SESSION_QUOTA_MEMORY": "0",
    "STREAMSPACE_AGENT_MAX_SESSIONS": "1000",
    "STREAMSPACE_AGENT_CPU": "10000",
    "STREAMSPACE_AGENT_MEMORY": "10Ti",
}


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    data: Path = tmp_path_factory.mktemp("three") / "data"
    running = Ensemble(data, buses=3, relays=1, agents=2, settings=UNLIMITED)
    try:
        asyncio.run(running.start())
        yield running
    finally:
        asyncio.run(running.close())


@pytest.fixture
async def api(ensemble: Ensemble) -> AsyncIterator[Api]:
    async with httpx2.AsyncClient(base_url=ensemble.url, timeout=30, trust_env=False) as client:
        yield await sign_in(client, "admin", ADMIN_PASSWORD)


@contextlib.asynccontextmanager
async def following(api: Api) -> AsyncIterator[list[tuple[int, str, str]]]:
    """Every change of a state that one browser is told: sequence, session, new state."""
    told: list[tuple[int, str, str]] = []

    async def follow() -> None:
        async with api.events("/events") as events:
            async for event in events:
                if event.name == "state":
                    told.append((event.id, event.data["sessionId"], event.data["toState"]))

    task = asyncio.create_task(follow())
    try:
        yield told
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def bus_of(ensemble: Ensemble) -> AsyncIterator[Bus]:
    """A look at the streams, with the rights of the session service."""
    settings = ensemble.bus.settings()
    connected = await Bus.connect(
        settings["STREAMSPACE_NATS_URL"],
        name="test",
        credentials=ensemble.layout.credentials("session"),
        ca_file=Path(settings["STREAMSPACE_NATS_CA_FILE"]),
        inbox=SERVICES["session"].inbox,
    )
    try:
        yield connected
    finally:
        await connected.close()


async def every_copy_is_current(bus: Bus) -> bool:
    for stream in STREAMS:
        cluster = (await bus.link.api(f"STREAM.INFO.{stream.name}"))["cluster"]
        copies = cluster.get("replicas", [])
        if len(copies) != 2 or not all(copy["current"] for copy in copies):
            return False
    return True


async def lived_through(ensemble: Ensemble, api: Api, workload: Workload) -> None:
    """Nothing lost, nothing doubled, every life at its end, and the cluster of agents is well.

    How long the slowest request took is printed: beside the promise of 30 seconds it is a
    figure, since a busy machine may add to it what it likes.
    """
    verdict = compare(ensemble.ledger, workload)
    assert (verdict.lost, verdict.doubled) == ([], [])
    assert sorted(workload.finished) == sorted(workload.accepted)
    clusters = (await api.get("/clusters")).json()["items"]
    assert {cluster["presence"] for cluster in clusters} == {"online"}


def told_once(told: list[tuple[int, str, str]], workload: Workload) -> None:
    """The browser heard each end once, and everything in the order of the stream."""
    assert [event[0] for event in told] == sorted({event[0] for event in told})
    ends = Counter(session for _, session, state in told if state == "terminated")
    assert {ends[session] for session in workload.finished} == {1}


def tell(what: str, began: float, workload: Workload) -> None:
    print(
        f"{what}: {time.monotonic() - began:.1f} s; so far {workload.commands} commands, "
        f"slowest {workload.slowest:.1f} s, refused for now {dict(workload.refused)}"
    )


async def heard(told: list[tuple[int, str, str]], workload: Workload) -> None:
    """Wait until the browser, which still listens, knows of every end."""
    await eventually(lambda: ends_of(told) >= set(workload.finished), timeout=60)


async def test_nothing_is_lost_when_one_server_after_another_is_killed(
    ensemble: Ensemble, api: Api
) -> None:
    async with following(api) as told:
        async with working(api) as workload:
            await workload.more(6)
            for name in BUSES:
                began = time.monotonic()
                await ensemble.end(name, kill=True)
                await workload.more(8)
                tell(f"{name} killed, 8 lives without it", began, workload)
                began = time.monotonic()
                await ensemble.start_parts(name)
                tell(f"{name} healthy again", began, workload)
                await workload.more(6)
        await heard(told, workload)
    await lived_through(ensemble, api, workload)
    told_once(told, workload)
    async with bus_of(ensemble) as bus:
        await eventually(lambda: every_copy_is_current(bus), timeout=60)


async def test_a_rolling_upgrade_of_the_servers_refuses_nobody_for_long(
    ensemble: Ensemble, api: Api
) -> None:
    async with following(api) as told:
        async with working(api) as workload:
            await workload.more(6)
            for name in BUSES:
                server = ensemble.parts[name]
                assert isinstance(server, NatsServer)
                began = time.monotonic()
                await asyncio.to_thread(server.leave)
                await ensemble.start_parts(name)
                tell(f"{name} left and is back", began, workload)
                await workload.more(6)
        await heard(told, workload)
    await lived_through(ensemble, api, workload)
    told_once(told, workload)


def ends_of(told: list[tuple[int, str, str]]) -> set[str]:
    return {session for _, session, state in told if state == "terminated"}
