"""The life of a session from request to history, told by API and by events."""

import asyncio

from streamspace_common.contracts.commands import StartSession
from streamspace_common.contracts.events import PhaseReached, SessionCreated, SessionStateChanged
from streamspace_common.contracts.requests import SessionMethods
from streamspace_common.contracts.sessions import (
    DesiredState,
    Reason,
    SessionCommandState,
    SessionState,
)


async def test_a_session_goes_from_request_to_history(lab):
    accepted = await lab.create()
    session = accepted.session
    assert session.state is SessionState.PENDING
    assert session.cluster_id == "lab"
    assert not accepted.replayed

    running = await lab.reaches(session.id, SessionState.RUNNING)
    assert running.started_at is not None
    assert running.deadline is None
    assert [timing.phase for timing in running.phases] == ["created", "ready"]

    deleted = await lab.delete(session.id)
    assert deleted.session.state is SessionState.TERMINATING
    assert deleted.session.desired is DesiredState.TERMINATED
    ended = await lab.reaches(session.id, SessionState.TERMINATED)
    assert ended.terminated_at is not None
    assert ended.reason is Reason.USER
    assert lab.agents[0].holds == {}
    await lab.told(session.id, "starting", "running", "terminating", "terminated")


async def test_every_change_is_told_with_who_caused_it(lab):
    session = await lab.running(lab.user("ada"))
    await lab.delete(session.id, lab.user("ada"))
    await lab.reaches(session.id, SessionState.TERMINATED)

    await lab.told(session.id, "starting", "running", "terminating", "terminated")
    history = await lab.history(session.id)
    created = history[0]
    assert isinstance(created, SessionCreated)
    assert created.actor.name == "ada"
    assert created.actor.address == "192.0.2.7"
    changes = [event for event in history if isinstance(event, SessionStateChanged)]
    assert [change.actor.id for change in changes] == [
        "agent:lab/agent-1",
        "agent:lab/agent-1",
        lab.user("ada").user_id,
        "agent:lab/agent-1",
    ]
    assert [change.session.state for change in changes] == [c.to_state for c in changes]
    assert [change.session.version for change in changes] == sorted(
        change.session.version for change in changes
    )
    assert any(isinstance(event, PhaseReached) for event in history)


async def test_a_start_carries_all_an_agent_needs(lab):
    session = await lab.running(lab.user("Ada Lovelace"))
    start = lab.agents[0].commands[0]
    assert isinstance(start, StartSession)
    assert start.spec.template_manifest.metadata.name == "desktop"
    assert start.spec.template_digest == session.template_digest
    assert start.spec.template_manifest.spec.env[0].value == "hello"
    assert start.spec.env["STREAMSPACE_SESSION_ID"] == session.id
    assert start.spec.home.startswith("ada-lovelace--")
    assert start.spec.home.endswith(lab.user("Ada Lovelace").user_id[4:12])
    assert start.generation == 1
    assert start.attempt == 1


async def test_a_session_hibernates_and_wakes(lab):
    session = await lab.running()
    hibernating = await lab.ask(SessionMethods.HIBERNATE, session.id)
    assert hibernating.session.state is SessionState.HIBERNATING
    hibernated = await lab.reaches(session.id, SessionState.HIBERNATED)
    assert hibernated.desired is DesiredState.HIBERNATED

    waking = await lab.ask(SessionMethods.WAKE, session.id)
    assert waking.session.state is SessionState.WAKING
    woken = await lab.reaches(session.id, SessionState.RUNNING)
    assert woken.started_at == session.started_at
    assert woken.generation == 3
    await lab.told(
        session.id, "starting", "running", "hibernating", "hibernated", "waking", "running"
    )


async def test_a_commands_life_is_tracked(lab):
    session = await lab.running()
    await lab.ask(SessionMethods.HIBERNATE, session.id)
    await lab.reaches(session.id, SessionState.HIBERNATED)
    commands = await lab.commands(session.id)
    assert [(c.action, c.state, c.generation) for c in commands] == [
        ("hibernate_session", SessionCommandState.COMPLETED, 2),
        ("start_session", SessionCommandState.COMPLETED, 1),
    ]
    assert all(c.acknowledged_at <= c.completed_at for c in commands)


async def test_a_second_deletion_is_a_no_op_with_the_same_command(lab):
    session = await lab.running()
    first = await lab.delete(session.id)
    second = await lab.delete(session.id)
    assert first.command_id == second.command_id
    await lab.reaches(session.id, SessionState.TERMINATED)
    third = await lab.delete(session.id)
    assert third.command_id == first.command_id
    assert third.session.state is SessionState.TERMINATED
    assert lab.agents[0].actions(session.id) == ["start_session", "stop_session"]


async def test_five_users_live_side_by_side_and_see_only_their_own(lab):
    users = [lab.user(f"user{number}") for number in range(5)]
    sessions = await asyncio.gather(*(lab.running(user) for user in users))
    for user, session in zip(users, sessions, strict=True):
        page = await lab.call(
            SessionMethods.LIST,
            SessionMethods.LIST.request(principal=user),
        )
        assert [one.id for one in page.items] == [session.id]
    await asyncio.gather(*(lab.delete(s.id, user) for user, s in zip(users, sessions, strict=True)))
    for session in sessions:
        await lab.reaches(session.id, SessionState.TERMINATED)
    assert lab.agents[0].holds == {}


async def test_a_desktop_that_dies_fails_its_session_and_leaves_nothing(lab):
    session = await lab.running()
    await lab.agents[0].die(session.id)
    failed = await lab.reaches(session.id, SessionState.FAILED)
    assert failed.reason is Reason.DESKTOP_DIED
    assert failed.message

    def cleaned() -> bool:
        return session.id not in lab.agents[0].holds

    from streamspace_common.testing.waiting import eventually

    await eventually(cleaned)
    assert (await lab.get(session.id)).state is SessionState.FAILED


async def test_a_failed_start_fails_the_session_with_the_agents_words(lab):
    lab.agents[0].failing = {"start_session": Reason.MISSING_PROGRAM}
    accepted = await lab.create()
    failed = await lab.reaches(accepted.session.id, SessionState.FAILED)
    assert failed.reason is Reason.MISSING_PROGRAM
    assert failed.message == "missing-program, as told."
    commands = await lab.commands(failed.id)
    assert commands[-1].state is SessionCommandState.FAILED
    assert commands[-1].error == failed.message


async def test_a_failed_session_can_be_deleted(lab):
    lab.agents[0].failing = {"start_session": Reason.START_FAILED}
    accepted = await lab.create()
    await lab.reaches(accepted.session.id, SessionState.FAILED)
    await lab.delete(accepted.session.id)
    ended = await lab.reaches(accepted.session.id, SessionState.TERMINATED)
    assert ended.terminated_at is not None
