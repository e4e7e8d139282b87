"""What agents hold is compared with what the database says, and made to agree."""

import asyncio

from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.events import SessionStopped
from streamspace_common.contracts.requests import SessionMethods
from streamspace_common.contracts.sessions import Reason, SessionState
from streamspace_common.testing.scripted_agent import Held
from streamspace_common.testing.waiting import eventually
from streamspace_session.handlers.events import Incoming


async def test_a_resource_of_no_session_is_stopped(lab):
    agent = lab.agents[0]
    agent.holds["stranger-desktop-0badcafe"] = Held(4, ResourceState.RUNNING)
    await agent.tell_inventory()
    await eventually(lambda: "stranger-desktop-0badcafe" not in agent.holds)
    assert agent.commands[-1].generation == 5


async def test_a_resource_of_another_clusters_session_is_stopped_where_it_is_not_due(lab):
    session = await lab.running()
    other = await lab.agent("other")
    other.holds[session.id] = Held(1, ResourceState.RUNNING)
    await other.tell_inventory()
    await eventually(lambda: session.id not in other.holds)
    assert (await lab.get(session.id)).state is SessionState.RUNNING
    assert session.id in lab.agents[0].holds


async def test_what_is_left_of_an_ended_session_is_stopped(lab):
    agent = lab.agents[0]
    session = await lab.running()
    await lab.delete(session.id)
    await lab.reaches(session.id, SessionState.TERMINATED)
    agent.holds[session.id] = Held(1, ResourceState.RUNNING)
    await agent.tell_inventory()
    await eventually(lambda: session.id not in agent.holds)
    assert (await lab.get(session.id)).state is SessionState.TERMINATED


async def test_a_missing_session_is_started_again_but_not_for_ever(world):
    await world.start(max_restarts=1)
    await world.template()
    agent = await world.agent()
    session = await world.running()
    agent.holds.clear()
    await agent.tell_inventory()

    async def again() -> bool:
        current = await world.get(session.id)
        return current.generation == 2 and current.state is SessionState.RUNNING

    await eventually(again)
    agent.holds.clear()
    await agent.tell_inventory()
    failed = await world.reaches(session.id, SessionState.FAILED)
    assert failed.reason is Reason.LOST


async def test_what_the_agent_is_busy_with_is_left_alone(lab):
    agent = lab.agents[0]
    session = await lab.running()
    agent.holds.clear()
    await agent.tell_inventory(session.id)
    # Inventories are heard in order: once this stranger is stopped, the first was seen.
    agent.holds["stranger-desktop-0badcafe"] = Held(1, ResourceState.RUNNING)
    await agent.tell_inventory(session.id)
    await eventually(lambda: not agent.holds)
    assert (await lab.get(session.id)).generation == 1


async def test_what_has_just_changed_is_left_to_the_next_inventory(world):
    await world.start(inventory_grace=30)
    await world.template()
    agent = await world.agent()
    session = await world.running()
    agent.holds.clear()
    await agent.tell_inventory()
    agent.holds["stranger-desktop-0badcafe"] = Held(1, ResourceState.RUNNING)
    await agent.tell_inventory()
    await eventually(lambda: not agent.holds)
    assert (await world.get(session.id)).generation == 1


async def test_a_dead_desktop_in_an_inventory_fails_its_session(lab):
    agent = lab.agents[0]
    session = await lab.running()
    agent.holds[session.id] = Held(1, ResourceState.DEAD)
    await agent.tell_inventory()
    failed = await lab.reaches(session.id, SessionState.FAILED)
    assert failed.reason is Reason.DESKTOP_DIED


async def test_a_report_of_an_older_generation_changes_nothing(lab):
    session = await lab.running()
    await lab.ask(SessionMethods.HIBERNATE, session.id)
    await lab.reaches(session.id, SessionState.HIBERNATED)
    start = lab.agents[0].commands[0]
    await lab.publish(_stopped(session.id, start, generation=1))
    await lab.publish(_stopped(session.id, start, generation=99))
    await lab.ask(SessionMethods.WAKE, session.id)
    await lab.reaches(session.id, SessionState.RUNNING)
    await lab.told(
        session.id, "starting", "running", "hibernating", "hibernated", "waking", "running"
    )


async def test_a_session_gone_without_anybody_asking_is_failed(lab):
    session = await lab.running()
    await lab.publish(_stopped(session.id, lab.agents[0].commands[0], generation=1))
    failed = await lab.reaches(session.id, SessionState.FAILED)
    assert failed.reason is Reason.LOST


async def test_the_same_report_twice_has_one_effect(lab):
    session = await lab.running()
    report = _stopped(session.id, lab.agents[0].commands[0], generation=1)
    await lab.publish(report)
    failed = await lab.reaches(session.id, SessionState.FAILED)
    intake = lab.replicas[0].service.intake
    await asyncio.gather(*(intake.take([Incoming(report, 1)]) for _ in range(3)))
    await lab.told(session.id, "starting", "running", "failed")
    assert (await lab.get(session.id)).version == failed.version


def _stopped(session, start, *, generation):
    return SessionStopped(
        id=f"{start.command_id}.forged.{generation}",
        at=start.issued_at,
        cluster_id="lab",
        instance="agent-1",
        session_id=session,
        generation=generation,
    )
