"""Signing in, staying signed in, signing out, over the bus."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

import pytest
import structlog
from tests.integration.auth.installation import Installation

from streamspace_auth.meters import LOGINS
from streamspace_common.contracts.events import RefreshTokenReused, UserSignedIn, UserSignedOut
from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.problems import Code, Problem, ProblemError
from streamspace_common.contracts.requests import (
    AuthMethods,
    Empty,
    LoginRequest,
    LogoutRequest,
    UpdateUser,
)

PASSWORD = "a password of some length"


async def refused(code: Code, attempt: Awaitable[object]) -> Problem:
    with pytest.raises(ProblemError) as caught:
        await attempt
    assert caught.value.problem.code is code
    return caught.value.problem


def logins(result: str) -> float:
    value: float = LOGINS.labels(result=result)._value.get()
    return value


async def logout(auth: Installation, token: str) -> None:
    await auth.call(AuthMethods.LOGOUT, LogoutRequest(refresh_token=token, address="192.0.2.1"))


async def age(auth: Installation, by: timedelta) -> None:
    """Let time pass for all tokens and families, and for failed logins."""
    await auth.sql(
        "UPDATE refresh_tokens SET issued_at = issued_at - $1::interval, expires_at = expires_at - $1,"
        " rotated_at = rotated_at - $1",
        by,
    )
    await auth.sql(
        "UPDATE refresh_families SET created_at = created_at - $1::interval, expires_at = expires_at - $1",
        by,
    )
    await auth.sql(
        "UPDATE login_failures SET failed_at = ARRAY(SELECT one - $1::interval FROM unnest(failed_at) one)",
        by,
    )


async def test_a_login_gives_tokens_that_the_gateway_can_verify(auth: Installation) -> None:
    user = await auth.create("Ada", Role.OPERATOR)
    tokens = await auth.login("aDA")

    assert tokens.expires_in == 900
    assert tokens.refresh_expires_in == 7 * 86400
    assert (tokens.user.id, tokens.user.username, tokens.user.role) == (user.id, "Ada", "operator")
    assert tokens.user.last_login_at is not None
    principal = await auth.verified(tokens)
    assert (principal.user_id, principal.username, principal.role) == (user.id, "Ada", "operator")
    assert principal.sign_in == auth.claims(tokens)["sid"]
    signed_in = (await auth.events(UserSignedIn, 2))[-1]
    assert signed_in.user_id == user.id
    assert (signed_in.actor.id, signed_in.actor.address) == (user.id, "192.0.2.1")


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("admin", "wrong password"),
        ("nobody", PASSWORD),
        ("no\x00body", PASSWORD),
        ("\ufdfa" * 255, "x"),
    ],
)
async def test_a_wrong_name_and_a_wrong_password_are_told_alike(
    auth: Installation, username: str, password: str
) -> None:
    before = logins("wrong")
    problem = await refused(Code.INVALID_CREDENTIALS, auth.login(username, password))
    assert problem.detail == "The user name or the password is wrong."
    assert logins("wrong") == before + 1


async def test_a_refresh_spends_its_token_and_gives_another_of_the_same_sign_in(
    auth: Installation,
) -> None:
    first = await auth.login("admin", "correct horse battery staple")
    second = await auth.refresh(first.refresh_token)
    third = await auth.refresh(second.refresh_token)
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert auth.claims(first)["sid"] == auth.claims(third)["sid"]
    assert auth.claims(first)["jti"] != auth.claims(third)["jti"]


async def test_only_digests_of_refresh_tokens_are_kept(auth: Installation) -> None:
    tokens = await auth.login("admin", "correct horse battery staple")
    for row in await auth.sql("SELECT t::text AS line FROM refresh_tokens t"):
        assert tokens.refresh_token not in row["line"]
        assert tokens.refresh_token.encode().hex() not in row["line"]


async def test_a_token_that_comes_again_revokes_the_whole_family_and_no_other(
    auth: Installation,
) -> None:
    other = await auth.login("admin", "correct horse battery staple")
    stolen = (await auth.login("admin", "correct horse battery staple")).refresh_token
    honest = await auth.refresh(stolen)
    await age(auth, timedelta(seconds=11))

    await refused(Code.UNAUTHENTICATED, auth.refresh(stolen))
    await refused(Code.UNAUTHENTICATED, auth.refresh(honest.refresh_token))
    await refused(Code.UNAUTHENTICATED, auth.refresh(stolen))
    await auth.refresh(other.refresh_token)

    reuses = await auth.events(RefreshTokenReused)
    assert reuses[0].user_id == auth.admin.user_id
    rows = await auth.sql("SELECT count(*) FROM refresh_families WHERE revoked_at IS NOT NULL")
    assert rows[0][0] == 1


async def test_two_tabs_that_refresh_in_one_moment_both_go_on(auth: Installation) -> None:
    token = (await auth.login("admin", "correct horse battery staple")).refresh_token
    tabs = await asyncio.gather(*(auth.refresh(token) for _ in range(5)))
    assert len({tab.refresh_token for tab in tabs}) == 5
    # They share a cookie jar: the one that was stored last goes on for all.
    await auth.refresh(tabs[-1].refresh_token)


async def test_of_two_who_raced_with_one_token_only_one_goes_on_for_long(
    auth: Installation,
) -> None:
    token = (await auth.login("admin", "correct horse battery staple")).refresh_token
    one, other = await asyncio.gather(auth.refresh(token), auth.refresh(token))
    later = await auth.refresh(one.refresh_token)
    await age(auth, timedelta(seconds=11))
    await refused(Code.UNAUTHENTICATED, auth.refresh(other.refresh_token))
    await refused(Code.UNAUTHENTICATED, auth.refresh(later.refresh_token))


async def test_a_sign_in_slides_for_seven_days_and_ends_after_thirty(auth: Installation) -> None:
    token = (await auth.login("admin", "correct horse battery staple")).refresh_token
    for _ in range(4):
        await age(auth, timedelta(days=6))
        tokens = await auth.refresh(token)
        token = tokens.refresh_token
    await age(auth, timedelta(days=5))
    assert (await auth.refresh(token)).refresh_expires_in <= 86400
    await age(auth, timedelta(days=1))
    await refused(Code.UNAUTHENTICATED, auth.refresh(token))

    idle = (await auth.login("admin", "correct horse battery staple")).refresh_token
    await age(auth, timedelta(days=7))
    await refused(Code.UNAUTHENTICATED, auth.refresh(idle))


async def test_logout_ends_the_sign_in_and_may_be_repeated(auth: Installation) -> None:
    tokens = await auth.login("admin", "correct horse battery staple")
    newer = await auth.refresh(tokens.refresh_token)
    await logout(auth, newer.refresh_token)
    await refused(Code.UNAUTHENTICATED, auth.refresh(newer.refresh_token))
    await logout(auth, newer.refresh_token)
    await logout(auth, "never seen")
    assert len(await auth.sql("SELECT 1 FROM refresh_families WHERE revoked_at IS NOT NULL")) == 1
    assert (await auth.events(UserSignedOut))[0].user_id == auth.admin.user_id


async def test_an_account_waits_after_ten_failures_whatever_address_and_replica(
    auth: Installation,
) -> None:
    await auth.replica()
    await auth.create("ada")
    for number in range(10):
        await refused(
            Code.INVALID_CREDENTIALS, auth.login("ada", "wrong", address=f"192.0.2.{number}")
        )
    before = logins("throttled")
    problem = await refused(Code.TOO_MANY_REQUESTS, auth.login("Ada", address="198.51.100.1"))
    assert 0 < (problem.retry_after or 0) <= 300
    assert logins("throttled") == before + 1
    await auth.login("admin", "correct horse battery staple")
    await age(auth, timedelta(minutes=5))
    await auth.login("ada")


async def test_a_name_nobody_has_is_throttled_like_any_other(auth: Installation) -> None:
    for _ in range(10):
        await refused(Code.INVALID_CREDENTIALS, auth.login("nobody", address=None))
    await refused(Code.TOO_MANY_REQUESTS, auth.login("nobody", address=None))


async def test_guesses_sent_at_once_meet_the_limit_too(auth: Installation) -> None:
    await auth.create("ada")
    outcomes = await asyncio.gather(
        *(auth.login("ada", f"guess {number}", address=None) for number in range(40)),
        return_exceptions=True,
    )
    codes = [one.problem.code for one in outcomes if isinstance(one, ProblemError)]
    assert codes.count(Code.INVALID_CREDENTIALS) == 10
    assert codes.count(Code.TOO_MANY_REQUESTS) == 30


async def test_good_logins_at_once_are_all_let_in(auth: Installation) -> None:
    await auth.create("ada")
    await asyncio.gather(*(auth.login("ada") for _ in range(30)))


async def test_a_success_forgives_the_failures_before_it(auth: Installation) -> None:
    await auth.create("ada")
    for _ in range(3):
        for _ in range(9):
            await refused(Code.INVALID_CREDENTIALS, auth.login("ada", "wrong", address=None))
        await auth.login("ada")
    assert await auth.sql("SELECT 1 FROM login_failures") == []


async def test_an_address_waits_after_fifty_failures_with_any_names(auth: Installation) -> None:
    for number in range(50):
        await refused(
            Code.INVALID_CREDENTIALS,
            auth.login(f"name {number}", address=f"2001:db8::{number:x}"),
        )
    await refused(Code.TOO_MANY_REQUESTS, auth.login("name x", address="2001:db8::1"))
    await auth.login("admin", "correct horse battery staple", address="192.0.2.77")


async def test_a_disabled_user_learns_so_only_with_the_right_password(auth: Installation) -> None:
    user = await auth.create("ada")
    await auth.call(
        AuthMethods.UPDATE_USER, UpdateUser(principal=auth.admin, user_id=user.id, disabled=True)
    )
    await refused(Code.INVALID_CREDENTIALS, auth.login("ada", "wrong password"))
    before = logins("disabled")
    await refused(Code.ACCOUNT_DISABLED, auth.login("ada"))
    assert logins("disabled") == before + 1


async def test_a_hash_with_other_parameters_is_replaced_at_login(auth: Installation) -> None:
    from pwdlib.hashers.argon2 import Argon2Hasher

    await auth.create("ada")
    older = Argon2Hasher(time_cost=2, memory_cost=16, parallelism=1).hash(PASSWORD)
    await auth.sql("UPDATE users SET password_hash = $1 WHERE username = 'ada'", older)
    await auth.login("ada")
    (row,) = await auth.sql("SELECT password_hash FROM users WHERE username = 'ada'")
    assert "m=8,t=1" in row["password_hash"]
    await auth.login("ada")


async def test_one_password_typed_on_two_keyboards_is_one_password(auth: Installation) -> None:
    await auth.create("ada", password="h\u00e9t\u00e9rog\u00e8ne")
    await auth.login("ada", "he\u0301te\u0301roge\u0300ne")


async def test_published_keys_are_public(auth: Installation) -> None:
    keys = await auth.call(AuthMethods.JWKS, Empty())
    assert [set(key) for key in keys.keys] == [{"kty", "crv", "alg", "use", "kid", "x"}]
    (row,) = await auth.sql("SELECT sealed_private FROM signing_keys")
    assert len(row["sealed_private"]) == 1 + 12 + 32 + 16


async def test_a_failed_login_is_logged_with_its_address_and_without_what_was_typed(
    auth: Installation,
) -> None:
    parts, database = auth.parts()
    with structlog.testing.capture_logs() as lines:
        await refused(
            Code.INVALID_CREDENTIALS,
            parts.sign_in.login(
                LoginRequest(username="hunter2-secret", password="s3cret-pass", address="192.0.2.5")
            ),
        )
    parts.close()
    await database.dispose()
    (line,) = [line for line in lines if line["event"] == "login failed"]
    assert (line["result"], line["address"]) == ("wrong", "192.0.2.5")
    assert "hunter2-secret" not in repr(lines)
    assert "s3cret-pass" not in repr(lines)
