"""A projection thrown away and had again: identical, or the difference is told."""

import asyncio
import os
import sys

import pytest
from sqlalchemy import text

from streamspace_common.contracts.requests import SessionMethods
from streamspace_common.contracts.sessions import Reason, SessionState
from streamspace_common.contracts.streams import EVENTS
from streamspace_session.rebuild import rebuild
from streamspace_session.store.rebuilding import CannotRebuildError


async def lives(world):
    """Sessions that went through most of what can happen."""
    [agent] = world.agents
    well, deleted, rested = await world.running(), await world.running(), await world.running()
    await world.delete(deleted.id)
    await world.reaches(deleted.id, SessionState.TERMINATED)
    await world.ask(SessionMethods.HIBERNATE, rested.id)
    await world.reaches(rested.id, SessionState.HIBERNATED)
    await world.ask(SessionMethods.WAKE, rested.id)
    await world.reaches(rested.id, SessionState.RUNNING)
    await agent.die(well.id)
    await world.reaches(well.id, SessionState.FAILED)
    agent.failing["start_session"] = Reason.NO_SPACE
    failed = await world.create()
    await world.reaches(failed.session.id, SessionState.FAILED)
    agent.failing.clear()


async def execute(world, statement):
    async with world.database.transaction() as tx:
        return await tx.execute(text(statement))


async def test_what_the_stream_tells_is_what_the_database_holds(lab):
    await lives(lab)
    report = await rebuild(lab.bus, lab.database, "rebuilt_1")
    assert report.differences == []
    assert report.rows_that_differ == 0
    assert report.sessions == 4
    assert report.events > 20
    found = await execute(lab, "SELECT count(*) FROM rebuilt_1.session_history")
    assert found.scalar_one() == report.events


async def test_it_may_be_rebuilt_while_sessions_live_on(lab):
    for number in range(3):
        session = await lab.running()
        await lab.delete(session.id)
        report = await rebuild(lab.bus, lab.database, f"rebuilt_{number}", keep=False)
        assert report.differences == []


@pytest.mark.parametrize(
    ("harm", "table", "column"),
    [
        ("UPDATE sessions SET state = 'running', message = 'x'", "sessions", "message"),
        ("UPDATE commands SET attempt = 7", "commands", "attempt"),
        ("UPDATE session_history SET payload = '{}'", "session_history", "payload"),
        ("DELETE FROM session_history WHERE type LIKE '%created%'", "session_history", "*"),
        ("DELETE FROM commands", "commands", "*"),
    ],
)
async def test_every_difference_is_told_with_its_row(lab, harm, table, column):
    session = await lab.running()
    await rebuild(lab.bus, lab.database, "before", keep=False)
    await execute(lab, harm)
    report = await rebuild(lab.bus, lab.database, "after")
    assert report.rows_that_differ > 0
    assert (table, column) in {(one.table, one.column) for one in report.differences}
    if table == "sessions":
        assert {one.key for one in report.differences} == {session.id}


async def test_a_schema_is_made_anew_only_when_told(lab):
    await lab.running()
    await rebuild(lab.bus, lab.database, "mine")
    with pytest.raises(CannotRebuildError, match="--replace"):
        await rebuild(lab.bus, lab.database, "mine")
    assert (await rebuild(lab.bus, lab.database, "mine", replace=True)).rows_that_differ == 0
    for name in ("public", "Mine", "a-b", 'x"; DROP SCHEMA public; --', "pg_x" * 20):
        with pytest.raises(CannotRebuildError, match="cannot be used"):
            await rebuild(lab.bus, lab.database, name)


async def test_an_empty_stream_rebuilds_nothing(lab):
    report = await rebuild(lab.bus, lab.database, "empty")
    assert (report.events, report.rows_that_differ) == (0, 0)


async def command(world, *arguments):
    """Run it as an operator does; its exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streamspace_session.rebuild",
        *arguments,
        env={
            **os.environ,
            "STREAMSPACE_SESSION_DATABASE_URL": world.database_url,
            "STREAMSPACE_SESSION_NATS_URL": world.nats.url,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_the_exit_code_tells_whether_both_are_the_same(lab):
    session = await lab.running()
    code, said = await command(lab, "--into", "one")
    assert (code, "the same as live" in said) == (0, True), said
    await execute(lab, "UPDATE sessions SET desired = 'terminated'")
    code, said = await command(lab, "--into", "two", "--discard")
    assert code == 1, said
    assert f"sessions {session.id} desired: live terminated, rebuilt running" in said
    code, said = await command(lab, "--into", "one")
    assert code == 2, said
    assert "--replace" in said


async def test_what_the_stream_holds_no_longer_is_not_missed(lab):
    await lives(lab)
    later = await lab.running()
    _, last = await lab.bus.stream_bounds(EVENTS.name)
    config = (await lab.bus.link.api(f"STREAM.INFO.{EVENTS.name}"))["config"]
    await lab.bus.link.api(f"STREAM.UPDATE.{EVENTS.name}", config | {"max_msgs": 12})
    assert await lab.bus.stream_bounds(EVENTS.name) == (last - 11, last)
    report = await rebuild(lab.bus, lab.database, "rest")
    assert report.differences == []
    assert 0 < report.events < 12
    # What it still holds is compared as ever.
    await execute(lab, f"UPDATE sessions SET generation = 9 WHERE id = '{later.id}'")
    report = await rebuild(lab.bus, lab.database, "again")
    assert [(one.key, one.column) for one in report.differences] == [(later.id, "generation")]
