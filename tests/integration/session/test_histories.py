"""A command's life with all its times, and a session's history: what, when, who and why."""

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from streamspace_common.bus import StartAt
from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    CreateSession,
    SessionAt,
    SessionHistoryRequest,
    SessionMethods,
    SessionRequest,
)
from streamspace_common.contracts.sessions import Reason, SessionCommandState, SessionState
from streamspace_common.runtime.tracing import new_traceparent, trace_id_of, tracing
from streamspace_common.testing.waiting import eventually


async def history(world, session, user=None, **page):
    request = SessionHistoryRequest(principal=user or world.admin, session_id=session, **page)
    return await world.call(SessionMethods.HISTORY, request)


async def at(world, session, moment, user=None):
    request = SessionAt(principal=user or world.admin, session_id=session, at=moment)
    return await world.call(SessionMethods.AT, request)


async def newest(world, session, state):
    async def so():
        command = (await world.commands(session))[0]
        assert command.state is state, command.state
        return True

    await eventually(so, message=f"the newest command is {state}")
    return (await world.commands(session))[0]


async def test_a_command_has_the_time_of_each_step_of_its_life(lab):
    session = await lab.running()
    [command] = await lab.commands(session.id)
    times = (
        command.created_at,
        command.delivered_at,
        command.acknowledged_at,
        command.completed_at,
    )
    assert list(times) == sorted(times)
    assert command.issued_at == command.created_at
    [attempt] = command.attempts
    assert (attempt.attempt, attempt.issued_at) == (1, command.issued_at)
    assert attempt.acknowledged_at == command.acknowledged_at


async def test_a_command_an_agent_took_without_a_word_is_delivered(world):
    await world.start(pending_limit=30)
    await world.template()
    # An agent that hangs: it takes commands and says nothing at all.
    agent = await world.agent(speechless=True)
    accepted = await world.create()
    command = await newest(world, accepted.session.id, SessionCommandState.DELIVERED)
    assert command.delivered_at is not None
    assert command.acknowledged_at is None
    assert (await world.cluster("lab")).waiting_commands == 0
    assert agent.commands


async def test_a_newer_command_is_named_as_what_took_the_place_of_the_older(lab):
    [agent] = lab.agents
    await agent.stop()
    accepted = await lab.create()
    deleted = await lab.delete(accepted.session.id)
    newer, older = await lab.commands(accepted.session.id)
    assert newer.id == deleted.command_id
    assert older.state is SessionCommandState.SUPERSEDED
    assert older.superseded_by == newer.id
    assert older.completed_at is not None


async def test_every_attempt_of_a_command_is_kept(world):
    await world.start(starting_limit=0.3, max_attempts=3)
    await world.template()
    await world.agent(deaf_to={"start_session"})
    accepted = await world.create()
    await world.reaches(accepted.session.id, SessionState.FAILED)
    start = (await world.commands(accepted.session.id))[-1]
    assert [one.attempt for one in start.attempts] == [1, 2, 3]
    issued = [one.issued_at for one in start.attempts]
    assert issued == sorted(issued)
    assert issued[0] == start.created_at
    assert issued[-1] == start.issued_at


async def test_history_tells_all_changes_with_actor_cause_and_trace(lab):
    ada = lab.user("ada")
    trace = new_traceparent()
    with tracing(trace):
        accepted = await lab.call(
            SessionMethods.CREATE,
            CreateSession(
                principal=ada,
                address="192.0.2.7",
                template="starter_desktop",
                request_id="req-1",
            ),
        )
    session = accepted.session.id
    await lab.reaches(session, SessionState.RUNNING)
    await lab.ask(SessionMethods.HIBERNATE, session, ada)
    await lab.reaches(session, SessionState.HIBERNATED)

    told = (await history(lab, session)).items
    states = [(e.from_state, e.to_state) for e in told if e.to_state is not None]
    assert states == [
        (None, "pending"),
        ("pending", "starting"),
        ("starting", "running"),
        ("running", "hibernating"),
        ("hibernating", "hibernated"),
    ]
    created, started = told[0], told[1]
    assert (created.actor.name, created.actor.address) == ("ada", "192.0.2.7")
    assert created.cause == "req-1"
    assert created.command.id == created.command_id == accepted.command_id
    assert created.command.state is SessionCommandState.PENDING
    assert started.actor.id == "agent:lab/agent-1"
    assert started.cause == f"{accepted.command_id}.1.received"
    assert started.command.state is SessionCommandState.ACKNOWLEDGED
    # What the start caused belongs to the request's trace.
    assert {e.trace_id for e in told[:3]} == {trace_id_of(trace)}
    assert [e.at for e in told] == sorted(e.at for e in told)


async def test_a_reissue_and_a_failure_stand_in_the_history(world):
    await world.start(starting_limit=0.3, max_attempts=2)
    await world.template()
    await world.agent(deaf_to={"start_session"})
    session = (await world.create()).session.id
    await world.reaches(session, SessionState.FAILED)
    told = (await history(world, session)).items
    kinds = [entry.type for entry in told]
    assert "session.command-changed.v1" in kinds
    assert "session.command-died.v1" in kinds
    [failed] = [entry for entry in told if entry.to_state is SessionState.FAILED]
    assert failed.reason is Reason.DEADLINE_EXCEEDED
    assert failed.replaced.state is SessionCommandState.FAILED
    assert failed.command.action == "stop_session"


async def test_history_is_paged_oldest_first(lab):
    session = (await lab.running()).id
    whole = [entry.event_id for entry in (await history(lab, session)).items]
    seen, cursor = [], None
    while True:
        page = await history(lab, session, limit=1, cursor=cursor)
        seen += [entry.event_id for entry in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == whole
    with pytest.raises(ProblemError) as refused:
        await history(lab, session, cursor="x")
    assert refused.value.problem.code is Code.INVALID_REQUEST


async def test_history_is_the_owners_and_hides_where_others_sat(lab):
    ada, bob = lab.user("ada"), lab.user("bob")
    session = (await lab.running(ada)).id
    for ask in (history(lab, session, bob), at(lab, session, datetime.now(UTC), bob)):
        with pytest.raises(ProblemError) as refused:
            await ask
        assert refused.value.problem.code is Code.NOT_FOUND
    [created, *_] = (await history(lab, session, ada)).items
    assert created.actor.address is None
    assert created.command.actor.address is None
    operator = lab.user("olga", Role.OPERATOR)
    assert (await history(lab, session, operator)).items[0].actor.address == "192.0.2.7"


async def test_a_session_can_be_seen_as_it_was_at_any_moment(lab):
    session = (await lab.running()).id
    await lab.delete(session)
    ended = await lab.reaches(session, SessionState.TERMINATED)
    entries = [e for e in (await history(lab, session)).items if e.to_state is not None]
    for entry in entries:
        then = await at(lab, session, entry.at)
        assert then.state is entry.to_state
        assert then.generation == entry.generation
    created = entries[0].at
    with pytest.raises(ProblemError, match="did not exist yet") as refused:
        await at(lab, session, created - timedelta(seconds=1))
    assert refused.value.problem.code is Code.NOT_FOUND
    later = await at(lab, session, datetime.now(UTC) + timedelta(days=1))
    assert later == ended


async def test_history_is_what_the_stream_tells(lab):
    session = (await lab.running()).id
    await lab.delete(session)
    await lab.reaches(session, SessionState.TERMINATED)

    async def same():
        told = await stored(lab, session)
        assert told == await kept(lab, session)
        assert len(told) > 4
        return True

    await eventually(same, message="history and stream agree")


async def stored(world, session):
    end = await world.bus.last_sequence("EVENTS")
    found = []
    async with contextlib.aclosing(
        world.bus.tail("EVENTS", ["evt.core.>"], start=StartAt.all())
    ) as messages:
        async for message in messages:
            if message.headers["ce-subject"] == session:
                trace = trace_id_of(message.headers.get("traceparent"))
                found.append((message.headers["ce-id"], trace, json.loads(message.payload)))
            if message.sequence >= end:
                break
    return found


async def kept(world, session):
    async with world.database.transaction() as tx:
        rows = await tx.execute(
            text(
                "SELECT event_id, trace_id, payload FROM session_history "
                "WHERE session_id = :session ORDER BY id"
            ),
            {"session": session},
        )
        return [(row.event_id, row.trace_id, json.loads(row.payload)) for row in rows]


async def test_somebody_elses_commands_are_not_to_be_seen(lab):
    session = (await lab.running(lab.user("ada"))).id
    request = SessionRequest(principal=lab.user("bob"), session_id=session)
    with pytest.raises(ProblemError) as refused:
        await lab.call(SessionMethods.COMMANDS, request)
    assert refused.value.problem.code is Code.NOT_FOUND
