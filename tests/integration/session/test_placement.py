"""Sessions spread evenly, also when they all come at once."""

import asyncio
from collections import Counter

from streamspace_common.contracts.clusters import Capacity


async def test_a_burst_of_fifteen_over_three_clusters_is_five_each(world):
    await world.start(quota_sessions=0)
    await world.template()
    room = Capacity(max_sessions=20, cpu=64, memory=256 * 1024**3)
    for name in ("north", "south", "west"):
        await world.agent(name, capacity=room)
    answers = await asyncio.gather(*(world.create() for _ in range(15)))
    spread = Counter(answer.session.cluster_id for answer in answers)
    assert spread == {"north": 5, "south": 5, "west": 5}
    for answer in answers:
        await world.reaches(answer.session.id, "running")
    assert [len(agent.holds) for agent in world.agents] == [5, 5, 5]


async def test_two_replicas_spread_as_evenly_as_one(world):
    await world.start(quota_sessions=0)
    await world.start()
    await world.template()
    for name in ("north", "south", "west"):
        await world.agent(name)
    answers = await asyncio.gather(*(world.create() for _ in range(15)))
    spread = Counter(answer.session.cluster_id for answer in answers)
    assert sorted(spread.values()) == [5, 5, 5]


async def test_room_is_given_back_when_sessions_end(world):
    await world.start()
    await world.template()
    await world.agent()
    sessions = [await world.running() for _ in range(3)]
    assert (await world.cluster("lab")).reserved_sessions == 3
    for session in sessions:
        await world.delete(session.id)
    for session in sessions:
        await world.reaches(session.id, "terminated")
    assert (await world.cluster("lab")).reserved_sessions == 0


async def test_a_wish_for_a_cluster_is_kept(world):
    await world.start()
    await world.template()
    await world.agent("north")
    await world.agent("south")
    answers = [await world.create(cluster_id="south") for _ in range(3)]
    assert {answer.session.cluster_id for answer in answers} == {"south"}
