"""Agents that are away: the last word waits for them, and silence is shown, not guessed."""

import contextlib

import pytest

from streamspace_common.bus import StartAt
from streamspace_common.contracts.clusters import Capacity, Presence, ResourceState
from streamspace_common.contracts.events import ClusterPresenceChanged
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import SessionMethods
from streamspace_common.contracts.sessions import (
    Reason,
    SessionCommandState,
    SessionState,
)
from streamspace_common.testing.scripted_agent import Held
from streamspace_common.testing.waiting import eventually


async def patient(world, **settings):
    """A service that does not notice a silent agent within a test."""
    # Inventories on return are late news about what a command has just changed.
    await world.start(offline_after=60, inventory_grace=10, **settings)
    await world.template()
    return await world.agent()


async def hasty(world, **settings):
    """A service that counts an agent as gone after half a second."""
    await world.start(offline_after=0.6, **settings)
    await world.template()
    return await world.agent()


async def test_created_and_deleted_while_the_agent_is_away_is_never_started(world):
    agent = await patient(world)
    await agent.stop()
    accepted = await world.create()
    await world.delete(accepted.session.id)
    assert (await world.get(accepted.session.id)).state is SessionState.TERMINATING

    await world.sent(accepted.session.id, "stop_session")
    await agent.start()
    ended = await world.reaches(accepted.session.id, SessionState.TERMINATED)
    assert ended.terminated_at is not None
    assert [command.action for command in agent.commands] == ["stop_session"]
    commands = await world.commands(ended.id)
    assert [(c.action, c.state) for c in commands] == [
        ("stop_session", SessionCommandState.COMPLETED),
        ("start_session", SessionCommandState.SUPERSEDED),
    ]


async def test_deleted_while_the_agent_is_away_is_gone_when_it_returns_once(world):
    agent = await patient(world)
    session = await world.running()
    await agent.stop()
    await world.delete(session.id)
    await world.delete(session.id)
    await agent.start()
    await world.reaches(session.id, SessionState.TERMINATED)
    assert agent.actions(session.id) == ["start_session", "stop_session"]
    assert agent.holds == {}


async def test_commands_wait_as_pending_for_an_agent_that_is_away(world):
    agent = await patient(world)
    session = await world.running()
    await agent.stop()
    await world.ask(SessionMethods.HIBERNATE, session.id)
    assert (await world.commands(session.id))[0].state is SessionCommandState.PENDING
    cluster = await world.cluster("lab")
    assert cluster.waiting_commands == 1
    assert cluster.oldest_waiting_command_at is not None
    assert cluster.oldest_waiting_seconds is not None
    older = cluster.oldest_waiting_seconds

    async def ages():
        assert (await world.cluster("lab")).oldest_waiting_seconds > older
        return True

    await eventually(ages, message="the waiting command ages")
    await agent.start()
    await world.reaches(session.id, SessionState.HIBERNATED)


async def test_sessions_of_a_silent_cluster_are_unknown_and_return_to_the_truth(world):
    agent = await hasty(world)
    session = await world.running()
    await agent.stop()
    unknown = await world.reaches(session.id, SessionState.UNKNOWN)
    assert unknown.reason is Reason.CLUSTER_OFFLINE
    assert await world.is_("lab", Presence.OFFLINE)

    await agent.start()
    back = await world.reaches(session.id, SessionState.RUNNING)
    assert back.started_at == session.started_at
    assert back.reason is None
    assert agent.actions(session.id) == ["start_session"]
    await world.told(session.id, "starting", "running", "unknown", "running")


async def test_a_cluster_that_returns_without_its_session_starts_it_again(world):
    agent = await hasty(world)
    session = await world.running()
    await agent.stop()
    await world.reaches(session.id, SessionState.UNKNOWN)
    agent.holds.clear()
    await agent.start()
    again = await world.reaches(session.id, SessionState.RUNNING)
    assert again.generation == 2
    assert agent.actions(session.id) == ["start_session", "start_session"]


async def test_a_cluster_that_returns_with_a_dead_desktop_fails_the_session(world):
    agent = await hasty(world)
    session = await world.running()
    await agent.stop()
    await world.reaches(session.id, SessionState.UNKNOWN)
    agent.holds[session.id] = Held(1, ResourceState.DEAD)
    await agent.start()
    failed = await world.reaches(session.id, SessionState.FAILED)
    assert failed.reason is Reason.DESKTOP_DIED
    await eventually(lambda: session.id not in agent.holds)


async def test_hibernated_sessions_stay_so_while_their_cluster_is_away(world):
    agent = await hasty(world)
    session, other = await world.running(), await world.running()
    await world.ask(SessionMethods.HIBERNATE, session.id)
    await world.reaches(session.id, SessionState.HIBERNATED)
    await agent.stop()
    await world.reaches(other.id, SessionState.UNKNOWN)
    assert (await world.get(session.id)).state is SessionState.HIBERNATED


async def test_a_cluster_whose_heartbeats_are_late_is_degraded_before_it_is_offline(world):
    await world.start(offline_after=2.5)
    await world.template()
    agent = await world.agent()
    await agent.stop()
    await eventually(lambda: world.is_("lab", Presence.DEGRADED))
    await eventually(lambda: world.is_("lab", Presence.OFFLINE))
    await agent.start()
    await eventually(lambda: world.is_("lab", Presence.ONLINE))


async def test_presence_changes_are_told(world):
    agent = await hasty(world)
    await agent.stop()
    await eventually(lambda: world.is_("lab", Presence.OFFLINE))
    await agent.start()
    await eventually(lambda: world.is_("lab", Presence.ONLINE))
    agent.draining = True
    await eventually(lambda: world.is_("lab", Presence.DRAINING))

    told = []
    async with contextlib.aclosing(
        world.bus.tail("EVENTS", ["evt.core.cluster.>"], start=StartAt.all())
    ) as messages:
        async for message in messages:
            if message.type == ClusterPresenceChanged.TYPE:
                event = ClusterPresenceChanged.from_json(message.payload)
                # Whether a silent agent is seen to be late first is a matter of moments.
                now = event.to_presence
                if now is not Presence.DEGRADED and told[-1:] != [now]:
                    told.append(now)
            if len(told) == 4:
                break
    assert told == ["online", "offline", "online", "draining"]


async def test_accepted_while_every_able_cluster_is_away_and_started_on_return(world):
    agent = await hasty(world)
    await agent.stop()
    await eventually(lambda: world.is_("lab", Presence.OFFLINE))
    accepted = await world.create()
    assert accepted.session.state is SessionState.PENDING
    assert accepted.session.cluster_id is None
    assert accepted.command_id is not None
    await agent.start()
    running = await world.reaches(accepted.session.id, SessionState.RUNNING)
    assert running.cluster_id == "lab"
    assert agent.commands[0].command_id == accepted.command_id


async def test_deleted_before_any_cluster_took_it_ends_at_once(world):
    agent = await hasty(world)
    await agent.stop()
    await eventually(lambda: world.is_("lab", Presence.OFFLINE))
    accepted = await world.create()
    deleted = await world.delete(accepted.session.id)
    assert deleted.session.state is SessionState.TERMINATED
    assert deleted.session.terminated_at is not None
    await agent.start()
    await eventually(lambda: world.is_("lab", Presence.ONLINE))
    await world.running()
    assert agent.actions(accepted.session.id) == []


async def test_waiting_for_a_cluster_ends_at_its_deadline(world):
    agent = await hasty(world, pending_limit=0.3)
    await agent.stop()
    await eventually(lambda: world.is_("lab", Presence.OFFLINE))
    accepted = await world.create()
    failed = await world.reaches(accepted.session.id, SessionState.FAILED)
    assert failed.reason is Reason.CLUSTER_OFFLINE
    assert "Try again" in failed.message


async def test_without_an_able_cluster_the_reason_is_told(world):
    await world.start()
    await world.template("image-only", process=False, image="example/app:1")
    with pytest.raises(ProblemError) as none_at_all:
        await world.create(template="image-only")
    assert none_at_all.value.problem.code is Code.NO_CLUSTER
    await world.agent("laptop", runtime="process")
    with pytest.raises(ProblemError) as unable:
        await world.create(template="image-only")
    assert unable.value.problem.status == 409
    assert "laptop: it runs process" in unable.value.problem.detail


async def test_a_full_cluster_takes_no_more_until_something_ends(world):
    await world.start()
    await world.template()
    await world.agent(capacity=Capacity(max_sessions=2, cpu=0, memory=0))
    first, _ = await world.running(), await world.running()
    with pytest.raises(ProblemError) as full:
        await world.create()
    assert full.value.problem.code is Code.NO_CLUSTER
    assert "full" in full.value.problem.detail
    await world.delete(first.id)
    await world.reaches(first.id, SessionState.TERMINATED)
    await world.running()


async def test_heartbeats_that_contradict_their_subject_are_ignored(world):
    await world.start()
    await world.template()
    await world.enrol("lab")
    await world.enrol("other")
    forger = await world.silent_agent("lab")
    from streamspace_common.contracts.clusters import Heartbeat

    beat = Heartbeat(
        cluster_id="other",
        instance=forger.instance,
        runtime="null",
        version="1",
        sent_at="2026-01-01T00:00:00Z",
        capacity=forger.capacity,
        running_sessions=0,
    )
    await world.bus.publish_core("hb.lab.agent-1", beat)
    await forger.beat()
    await eventually(lambda: world.is_("lab", Presence.ONLINE))
    assert await world.is_("other", Presence.OFFLINE)
