"""NATS, PostgreSQL and the service itself may die: what was accepted ends right."""

import asyncio

from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import ListSessions, SessionMethods
from streamspace_common.contracts.sessions import SessionState
from streamspace_common.testing.waiting import eventually


async def keep_creating(world, count, *, pause=0.02):
    """Create sessions through an outage, trying each again until it is accepted."""
    accepted = []
    for number in range(count):
        while True:
            try:
                answer = await world.create(idempotency_key=f"key-{number}")
            except ProblemError as error:
                assert error.problem.code is Code.SERVICE_UNAVAILABLE, error.problem
                assert error.problem.retry_after
                await asyncio.sleep(0.2)
            else:
                accepted.append(answer.session.id)
                break
        await asyncio.sleep(pause)
    return accepted


async def all_running_once(world, sessions):
    for session in sessions:
        await world.reaches(session, SessionState.RUNNING, timeout=40)
    assert len(set(sessions)) == len(sessions)
    starts = [s for agent in world.agents for a, s in agent.effects if a == "start_session"]
    assert sorted(starts) == sorted(sessions)


async def test_nats_killed_under_traffic_loses_nothing(world):
    await world.start(quota_sessions=0)
    await world.template()
    await world.agent()
    traffic = asyncio.create_task(keep_creating(world, 30))
    await asyncio.sleep(0.3)
    world.nats.kill()
    await asyncio.sleep(0.5)
    world.nats.start()
    await all_running_once(world, await traffic)


async def test_postgres_killed_under_traffic_loses_nothing(world, postgres_server):
    await world.start(quota_sessions=0)
    await world.template()
    await world.agent()
    traffic = asyncio.create_task(keep_creating(world, 30))
    await asyncio.sleep(0.3)
    await asyncio.to_thread(postgres_server.kill)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(postgres_server.start)
    await all_running_once(world, await traffic)


async def test_a_service_replaced_under_traffic_loses_nothing(world):
    first = await world.start(quota_sessions=0)
    await world.template()
    await world.agent()
    traffic = asyncio.create_task(keep_creating(world, 40))
    await asyncio.sleep(0.2)
    await world.start()
    await asyncio.sleep(0.2)
    world.replicas.remove(first)
    await first.stop()
    await all_running_once(world, await traffic)


async def test_deletions_accepted_before_a_restart_take_effect_after_it(world):
    await world.start()
    await world.template()
    agent = await world.agent()
    sessions = [await world.running() for _ in range(5)]
    await agent.stop()
    for session in sessions:
        await world.delete(session.id)
    await world.stop_service()
    world.nats.restart(kill=True)
    await agent.start()
    # What the service had not yet published when it stopped, it publishes now.
    await world.start()
    await eventually(lambda: agent.holds == {}, timeout=20)
    for session in sessions:
        await world.reaches(session.id, SessionState.TERMINATED)
    assert all(agent.actions(s.id).count("stop_session") == 1 for s in sessions)


async def test_an_outage_of_our_own_makes_no_cluster_look_gone(world):
    await world.start(offline_after=1.0)
    await world.template()
    await world.agent()
    session = await world.running()
    world.nats.kill()
    await asyncio.sleep(1.5)
    world.nats.start()

    async def answers() -> bool:
        page = await world.call(SessionMethods.LIST, ListSessions(principal=world.admin))
        return len(page.items) == 1

    async def patiently() -> bool:
        try:
            return await answers()
        except ProblemError:
            return False

    await eventually(patiently, timeout=30)
    assert "unknown" not in await world.states(session.id)


async def test_replicas_share_the_work_and_nothing_happens_twice(world):
    await world.start(quota_sessions=0)
    await world.start()
    await world.template()
    agent = await world.agent()
    answers = await asyncio.gather(*(world.create() for _ in range(20)))
    ids = [answer.session.id for answer in answers]
    await all_running_once(world, ids)
    await asyncio.gather(*(world.delete(one) for one in ids))
    for one in ids:
        await world.reaches(one, SessionState.TERMINATED)
    assert sorted(s for a, s in agent.effects if a == "stop_session") == sorted(ids)
    for one in ids:
        await world.told(one, "starting", "running", "terminating", "terminated")
