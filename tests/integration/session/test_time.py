"""Every state that must end does: deadlines, attempts, idleness, longest durations."""

import asyncio
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from streamspace_common.contracts.events import SessionActivity
from streamspace_common.contracts.ids import new_message_id
from streamspace_common.contracts.requests import SessionMethods
from streamspace_common.contracts.sessions import (
    Phase,
    Reason,
    SessionCommandState,
    SessionState,
)
from streamspace_common.testing.waiting import eventually
from streamspace_session.ports import Retention


async def service(world, *, deaf_to=(), **settings):
    await world.start(**settings)
    await world.template()
    return await world.agent(deaf_to=set(deaf_to))


async def test_a_start_nobody_finishes_is_tried_again_then_failed_and_cleaned_up(world):
    agent = await service(world, deaf_to={"start_session"}, starting_limit=0.3, max_attempts=3)
    accepted = await world.create()
    failed = await world.reaches(accepted.session.id, SessionState.FAILED)
    assert failed.reason is Reason.DEADLINE_EXCEEDED
    assert "3 attempts" in failed.message
    starts = [c for c in agent.commands if c.action == "start_session"]
    assert [c.attempt for c in starts] == [1, 2, 3]
    assert {c.command_id for c in starts} == {accepted.command_id}
    assert {c.generation for c in starts} == {1}
    await eventually(lambda: agent.actions(failed.id) == ["stop_session"])
    assert (await world.get(failed.id)).state is SessionState.FAILED


async def test_a_second_attempt_that_works_saves_the_session(world):
    agent = await service(world, deaf_to={"start_session"}, starting_limit=0.5)
    accepted = await world.create()
    await world.reaches(accepted.session.id, SessionState.STARTING)
    agent.deaf_to.clear()
    running = await world.reaches(accepted.session.id, SessionState.RUNNING)
    assert (await world.commands(running.id))[0].attempt == 2


async def test_a_deletion_nobody_confirms_ends_too(world):
    agent = await service(world, deaf_to={"stop_session"}, terminating_limit=0.2, max_attempts=2)
    session = await world.running()
    await world.delete(session.id)
    ended = await world.reaches(session.id, SessionState.FAILED)
    assert ended.reason is Reason.DEADLINE_EXCEEDED
    agent.deaf_to.clear()
    await world.delete(session.id)
    await world.reaches(session.id, SessionState.TERMINATED)
    assert agent.holds == {}


async def test_a_stop_that_fails_is_tried_again_and_again(world):
    agent = await service(world, terminating_limit=0.2)
    session = await world.running()
    agent.failing = {"stop_session": Reason.STOP_FAILED}
    await world.delete(session.id)

    async def tried() -> bool:
        return sum(c.action == "stop_session" for c in agent.commands) >= 1

    await eventually(tried)
    assert (await world.get(session.id)).state is SessionState.TERMINATING
    agent.failing = {}
    await world.reaches(session.id, SessionState.TERMINATED, timeout=20)


async def test_a_deletion_on_a_cluster_that_stays_away_counts_as_done(world):
    agent = await service(world, offline_after=0.6, terminating_limit=0.2, offline_stop_limit=1.5)
    session = await world.running()
    await agent.stop()
    await world.reaches(session.id, SessionState.UNKNOWN)
    await world.delete(session.id)
    ended = await world.reaches(session.id, SessionState.TERMINATED)
    assert ended.reason is Reason.CLUSTER_OFFLINE
    assert ended.terminated_at is not None
    await agent.start()
    await eventually(lambda: agent.holds == {})
    assert agent.actions(session.id).count("stop_session") == 1


async def test_unknown_for_too_long_is_lost(world):
    agent = await service(world, offline_after=0.6, unknown_limit=0.5)
    session = await world.running()
    await agent.stop()
    failed = await world.reaches(session.id, SessionState.FAILED)
    assert failed.reason is Reason.LOST
    await agent.start()
    await eventually(lambda: agent.holds == {})


async def test_hibernating_and_waking_end_as_well(world):
    agent = await service(world, hibernating_limit=0.2, waking_limit=0.2, max_attempts=2)
    first, second = await world.running(), await world.running()
    await world.ask(SessionMethods.HIBERNATE, second.id)
    await world.reaches(second.id, SessionState.HIBERNATED)
    agent.deaf_to = {"hibernate_session", "wake_session"}
    await world.ask(SessionMethods.HIBERNATE, first.id)
    await world.ask(SessionMethods.WAKE, second.id)
    for session in (first, second):
        failed = await world.reaches(session.id, SessionState.FAILED)
        assert failed.reason is Reason.DEADLINE_EXCEEDED
        assert (await world.commands(session.id))[1].state is SessionCommandState.FAILED


async def test_phases_are_kept_without_telling_of_a_change_of_state(world):
    agent = await service(world)
    agent.phases = (Phase.SCHEDULED, Phase.PULLING, Phase.CREATED, Phase.STARTED, Phase.READY)
    session = await world.running()
    assert [timing.phase for timing in session.phases] == list(agent.phases)
    await world.told(session.id, "starting", "running")


async def test_an_idle_session_goes_to_rest(world):
    await service(world)
    accepted = await world.create(idle_timeout=60)
    await world.reaches(accepted.session.id, SessionState.RUNNING)
    await report_idle(world, accepted.session.id, idle=59.5)
    hibernated = await world.reaches(accepted.session.id, SessionState.HIBERNATED)
    assert hibernated.reason is Reason.IDLE


async def test_activity_keeps_a_session_from_resting(world):
    await service(world)
    accepted = await world.create(idle_timeout=60)
    running = await world.reaches(accepted.session.id, SessionState.RUNNING)
    await age(world, running.id, seconds=59)
    await report_idle(world, running.id, idle=0.0)

    async def noticed() -> bool:
        current = await world.get(running.id)
        return current.last_activity_at > running.last_activity_at - timedelta(seconds=1)

    await eventually(noticed)
    await asyncio.sleep(0.3)
    assert (await world.get(running.id)).state is SessionState.RUNNING


async def test_the_longest_duration_ends_a_session(world):
    await service(world)
    accepted = await world.create(max_duration=60)
    running = await world.reaches(accepted.session.id, SessionState.RUNNING)
    await age(world, running.id, seconds=61)
    ended = await world.reaches(running.id, SessionState.TERMINATED)
    assert ended.reason is Reason.MAX_DURATION


async def test_what_nobody_needs_is_forgotten(world):
    await service(world)
    session = await world.running(idempotency_key="k1")
    await world.call(
        SessionMethods.CONNECT,
        SessionMethods.CONNECT.request(principal=world.admin, session_id=session.id),
    )
    await world.template(description="a newer edition")
    await world.template(description="the newest edition")
    nothing = timedelta(seconds=-120)
    async with world.replicas[0].service.store.transaction() as tx:
        await tx.prune(
            Retention(idempotency=nothing, inbox=nothing, tickets=nothing, agents=nothing)
        )
    async with world.database.transaction() as tx:
        counts = {
            name: (await tx.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one()
            for name in ("idempotency", "tickets", "manifests")
        }
    # The newest manifest, and the one a session lives on.
    assert counts == {"idempotency": 0, "tickets": 0, "manifests": 2}


async def age(world, session: str, *, seconds: float) -> None:
    """Let the database believe that so much time has passed for a session."""
    async with world.database.transaction() as tx:
        await tx.execute(
            text(
                "UPDATE sessions SET started_at = started_at - CAST(:ago AS interval), "
                "last_activity_at = last_activity_at - CAST(:ago AS interval), "
                "idle_at = idle_at - CAST(:ago AS interval), "
                "ends_at = ends_at - CAST(:ago AS interval) WHERE id = :id"
            ),
            {"ago": timedelta(seconds=seconds), "id": session},
        )


async def report_idle(world, session: str, *, idle: float) -> None:
    """As the relay does."""
    await age(world, session, seconds=idle)
    await world.publish(
        SessionActivity(
            id=str(new_message_id()),
            at=datetime.now(UTC),
            actor=world.admin_actor,
            session_id=session,
            owner_id=world.admin.user_id,
            viewers=1,
            idle_seconds=idle,
            bytes_to_viewers=0,
            bytes_from_viewers=0,
        )
    )
