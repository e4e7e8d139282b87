"""Ended sessions are kept for as long as the settings say, and then wholly gone."""

from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError
from sqlalchemy import text

from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import SessionHistoryRequest, SessionMethods
from streamspace_common.contracts.sessions import SessionState
from streamspace_session.settings import SessionSettings

DAYS = timedelta(days=90)


async def aged(world, session, days):
    """Let a session's whole past lie so many days further back."""
    ago = {"session": session, "ago": timedelta(days=days)}
    async with world.database.transaction() as tx:
        await tx.execute(
            text(
                "UPDATE sessions SET updated_at = updated_at - CAST(:ago AS interval) WHERE id = :session"
            ),
            ago,
        )
        await tx.execute(
            text(
                "UPDATE session_history SET at = at - CAST(:ago AS interval) WHERE session_id = :session"
            ),
            ago,
        )


async def ended(world):
    session = await world.running()
    await world.delete(session.id)
    await world.reaches(session.id, SessionState.TERMINATED)
    await world.told(session.id, "starting", "running", "terminating", "terminated")
    return session.id


async def forget(world, limit=100):
    async with world.replicas[0].service.store.transaction() as tx:
        return await tx.sessions.forget_ended(DAYS, limit)


async def rows(world, session):
    """How many rows of each table speak of the session."""
    async with world.database.transaction() as tx:
        found = {}
        for table, column in (
            ("sessions", "id"),
            ("commands", "session_id"),
            ("session_history", "session_id"),
            ("tickets", "session_id"),
        ):
            counted = await tx.execute(
                text(f"SELECT count(*) FROM {table} WHERE {column} = :session"),
                {"session": session},
            )
            found[table] = counted.scalar_one()
        return found


async def test_a_session_that_ended_long_ago_is_gone_with_all_that_was_kept_of_it(lab):
    old, recent, living = await ended(lab), await ended(lab), (await lab.running()).id
    await aged(lab, old, 91)
    await aged(lab, recent, 89)
    await aged(lab, living, 91)

    assert await forget(lab) == 1
    assert await rows(lab, old) == dict.fromkeys(await rows(lab, old), 0)
    with pytest.raises(ProblemError) as refused:
        await lab.get(old)
    assert refused.value.problem.code is Code.NOT_FOUND
    for kept in (recent, living):
        assert (await rows(lab, kept))["sessions"] == 1
    history = await lab.call(
        SessionMethods.HISTORY, SessionHistoryRequest(principal=lab.admin, session_id=recent)
    )
    assert history.items
    assert await forget(lab) == 0


async def test_one_that_something_still_happens_to_stays(lab):
    session = await ended(lab)
    await aged(lab, session, 91)
    async with lab.database.transaction() as tx:
        await tx.execute(
            text(
                "UPDATE session_history SET at = clock_timestamp() WHERE id = "
                "(SELECT max(id) FROM session_history WHERE session_id = :session)"
            ),
            {"session": session},
        )
    assert await forget(lab) == 0


async def test_they_go_a_few_at_a_time(lab):
    for _ in range(3):
        await aged(lab, await ended(lab), 91)
    assert [await forget(lab, 2), await forget(lab, 2)] == [2, 1]


async def test_the_sweeper_does_it_and_counts_them(lab):
    name = "streamspace_sessions_forgotten_total"
    before = REGISTRY.get_sample_value(name) or 0
    await aged(lab, await ended(lab), 91)
    await lab.replicas[0].service.sweeper.forget_ended()
    assert REGISTRY.get_sample_value(name) == before + 1


def test_they_are_kept_for_longer_than_the_stream_keeps_their_events():
    """Otherwise a projection that is rebuilt from the stream would bring them back."""
    given = {"database_url": "postgresql://x@y/z"}
    assert SessionSettings(**given).ended_session_days == 90
    with pytest.raises(ValidationError, match="greater than 30"):
        SessionSettings(**given, ended_session_days=30)
