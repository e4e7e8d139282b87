"""PostgreSQL and NATS away and back, under requests."""

import asyncio

import pytest
from tests.integration.auth.installation import Installation

from streamspace_common.contracts.events import UserCreated, UserSignedIn
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import LoginRequest
from streamspace_common.testing.postgres import PostgresServer
from streamspace_common.testing.waiting import eventually

ADMIN_PASSWORD = "correct horse battery staple"


async def answers(auth: Installation) -> bool:
    try:
        await auth.login("admin", ADMIN_PASSWORD, address=None)
    except ProblemError as error:
        assert error.problem.code is Code.SERVICE_UNAVAILABLE
        assert error.problem.retry_after
        return False
    return True


async def test_while_the_database_is_away_callers_are_told_and_after_it_all_goes_on(
    auth: Installation, postgres_server: PostgresServer
) -> None:
    before = await auth.login("admin", ADMIN_PASSWORD)
    postgres_server.kill()
    try:
        with pytest.raises(ProblemError) as refused:
            await auth.refresh(before.refresh_token)
        assert refused.value.problem.code is Code.SERVICE_UNAVAILABLE
        assert not await answers(auth)
        # Whoever is signed in stays so: tokens are verified without the database.
        assert (await auth.verified(before)).username == "admin"
    finally:
        postgres_server.start()
    await eventually(lambda: answers(auth))
    await auth.refresh(before.refresh_token)


async def test_no_accepted_change_is_lost_when_the_database_is_killed_under_traffic(
    auth: Installation, postgres_server: PostgresServer
) -> None:
    kept: list[str] = []
    stop = asyncio.Event()

    async def worker(number: int) -> None:
        count = 0
        while not stop.is_set():
            try:
                kept.append((await auth.create(f"user {number} {count}")).username)
            except ProblemError as error:
                assert error.problem.code is Code.SERVICE_UNAVAILABLE, error
                await asyncio.sleep(0.05)
            count += 1

    workers = [asyncio.create_task(worker(number)) for number in range(4)]
    await eventually(lambda: len(kept) > 20)
    postgres_server.kill()
    postgres_server.start()
    already = len(kept)
    await eventually(lambda: len(kept) > already + 20, timeout=20)
    stop.set()
    await asyncio.gather(*workers)

    rows = await auth.sql("SELECT username FROM users")
    assert set(kept) <= {row["username"] for row in rows}
    told = await auth.events(UserCreated, len(rows))
    assert {event.user.username for event in told} == {row["username"] for row in rows}


async def test_what_happened_while_nats_was_away_is_told_when_it_is_back(
    auth: Installation,
) -> None:
    auth.nats.kill()
    parts, database = auth.parts()
    await parts.keys.refresh()
    await parts.sign_in.login(LoginRequest(username="admin", password=ADMIN_PASSWORD))
    parts.close()
    await database.dispose()
    auth.nats.start()
    assert len(await auth.events(UserSignedIn, 2)) == 2
