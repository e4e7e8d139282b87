"""Users: made, seen, listed, changed, disabled; by admins, over the bus."""

import asyncio
import base64
from collections.abc import Awaitable
from typing import Any

import pytest
from tests.integration.auth.installation import Installation

from streamspace_common.contracts.events import UserChanged, UserCreated
from streamspace_common.contracts.identity import Principal, Role
from streamspace_common.contracts.ids import UserId, new_user_id
from streamspace_common.contracts.problems import Code, Problem, ProblemError
from streamspace_common.contracts.requests import (
    AuthMethods,
    ChangePassword,
    CreateUser,
    GetUser,
    ListUsers,
    Method,
    UpdateUser,
    UserPage,
)

PASSWORD = "a password of some length"
ADMIN_PASSWORD = "correct horse battery staple"


async def refused(code: Code, attempt: Awaitable[object]) -> Problem:
    with pytest.raises(ProblemError) as caught:
        await attempt
    assert caught.value.problem.code is code
    return caught.value.problem


def update(
    auth: Installation, user_id: UserId, principal: Principal | None = None, **fields: Any
) -> Awaitable[Any]:
    return auth.call(
        AuthMethods.UPDATE_USER,
        UpdateUser(principal=principal or auth.admin, user_id=user_id, **fields),
    )


def listing(auth: Installation, **fields: Any) -> Awaitable[Any]:
    return auth.call(AuthMethods.LIST_USERS, ListUsers(principal=auth.admin, **fields))


def names(page: UserPage) -> list[str]:
    return [user.username for user in page.items]


async def test_an_admin_makes_a_user_who_can_sign_in(auth: Installation) -> None:
    user = await auth.create(
        " Ada Lovelace ", Role.OPERATOR, display_name="Ada", email="Ada@Example.org"
    )
    assert (user.username, user.display_name, user.email) == (
        "Ada Lovelace",
        "Ada",
        "Ada@Example.org",
    )
    assert (user.role, user.disabled, user.version) == (Role.OPERATOR, False, 1)
    assert (await auth.login("ada lovelace")).user.id == user.id
    told = (await auth.events(UserCreated, 2))[-1]
    assert told.user == user
    assert (told.actor.id, told.actor.address) == (auth.admin.user_id, "192.0.2.9")


@pytest.mark.parametrize("username", ["ADA", "ada ", "\uff41da"])
async def test_a_name_is_taken_in_every_spelling(auth: Installation, username: str) -> None:
    await auth.create("ada")
    problem = await refused(Code.ALREADY_EXISTS, auth.create(username))
    assert problem.errors[0].pointer == "/username"


async def test_an_address_is_taken_once_and_none_is_not_taken(auth: Installation) -> None:
    await auth.create("ada", email="a@example.org")
    problem = await refused(Code.ALREADY_EXISTS, auth.create("bob", email="A@example.org"))
    assert problem.errors[0].pointer == "/email"
    await auth.create("bob")
    carol = await auth.create("carol")
    await refused(Code.ALREADY_EXISTS, update(auth, carol.id, email="a@EXAMPLE.org"))


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"username": "a\x00"}, "/username"),
        ({"email": "no address"}, "/email"),
        ({"display_name": "a\nb"}, "/displayName"),
        ({"password": "aaaaaaaaaaaaaaa"}, "/password"),
        ({"password": "a longer name", "username": "A longer name"}, "/password"),
    ],
)
async def test_a_field_that_is_not_valid_names_itself(
    auth: Installation, fields: dict[str, Any], pointer: str
) -> None:
    problem = await refused(Code.INVALID_REQUEST, auth.create(**({"username": "ada"} | fields)))
    assert [error.pointer for error in problem.errors] == [pointer]
    assert fields.get("password", PASSWORD) not in problem.detail


async def test_of_two_who_take_a_name_at_once_one_gets_it(auth: Installation) -> None:
    outcomes = await asyncio.gather(*(auth.create("ada") for _ in range(6)), return_exceptions=True)
    losers = [outcome for outcome in outcomes if isinstance(outcome, ProblemError)]
    assert len(losers) == 5
    assert {error.problem.code for error in losers} == {Code.ALREADY_EXISTS}


async def test_everybody_sees_themselves_and_only_admins_see_others(auth: Installation) -> None:
    ada, principal = await auth.signed_in("ada", Role.OPERATOR)
    bob = await auth.create("bob")
    get = AuthMethods.GET_USER
    assert (await auth.call(get, GetUser(principal=principal, user_id=ada.id))).username == "ada"
    await refused(Code.FORBIDDEN, auth.call(get, GetUser(principal=principal, user_id=bob.id)))
    assert (await auth.call(get, GetUser(principal=auth.admin, user_id=bob.id))).id == bob.id
    unknown = GetUser(principal=auth.admin, user_id=new_user_id())
    await refused(Code.NOT_FOUND, auth.call(get, unknown))


@pytest.mark.parametrize("role", [Role.USER, Role.OPERATOR])
async def test_nobody_but_an_admin_administers(auth: Installation, role: Role) -> None:
    user, principal = await auth.signed_in("ada", role)
    attempts: tuple[tuple[Method[Any, Any], Any], ...] = (
        (AuthMethods.LIST_USERS, ListUsers(principal=principal)),
        (
            AuthMethods.CREATE_USER,
            CreateUser(principal=principal, username="eve", password=PASSWORD, role=Role.ADMIN),
        ),
        (
            AuthMethods.UPDATE_USER,
            UpdateUser(principal=principal, user_id=user.id, role=Role.ADMIN),
        ),
        (
            AuthMethods.UPDATE_USER,
            UpdateUser(principal=principal, user_id=user.id, password=PASSWORD),
        ),
    )
    for method, request in attempts:
        await refused(Code.FORBIDDEN, auth.call(method, request))


async def test_a_role_that_was_taken_away_counts_at_once(auth: Installation) -> None:
    ada, principal = await auth.signed_in("ada", Role.ADMIN)
    await auth.call(AuthMethods.LIST_USERS, ListUsers(principal=principal))
    await update(auth, ada.id, role=Role.USER)
    listed = ListUsers(principal=principal)
    await refused(Code.FORBIDDEN, auth.call(AuthMethods.LIST_USERS, listed))
    await update(auth, ada.id, disabled=True)
    await refused(Code.ACCOUNT_DISABLED, auth.call(AuthMethods.LIST_USERS, listed))
    stranger = Principal(user_id=new_user_id(), username="x", role=Role.ADMIN)
    await refused(
        Code.UNAUTHENTICATED, auth.call(AuthMethods.LIST_USERS, ListUsers(principal=stranger))
    )


async def test_a_change_is_told_with_what_differs(auth: Installation) -> None:
    ada = await auth.create("ada", email="a@b.c")
    after = await update(auth, ada.id, display_name="Ada", email="", role=Role.OPERATOR)
    assert (after.display_name, after.email, after.role) == ("Ada", None, Role.OPERATOR)
    assert after.version == 2
    assert await update(auth, ada.id, display_name="Ada") == after
    (told,) = await auth.events(UserChanged)
    assert told.user == after
    assert told.changed == ("displayName", "email", "role")


async def test_a_change_decided_on_an_older_state_is_refused(auth: Installation) -> None:
    ada = await auth.create("ada")
    await update(auth, ada.id, display_name="Ada", if_version=1)
    await refused(Code.PRECONDITION_FAILED, update(auth, ada.id, display_name="Eve", if_version=1))
    outcomes = await asyncio.gather(
        *(update(auth, ada.id, display_name=f"Ada {n}", if_version=2) for n in range(5)),
        return_exceptions=True,
    )
    assert sum(not isinstance(outcome, ProblemError) for outcome in outcomes) == 1


async def test_disabling_a_user_ends_all_their_sign_ins_at_once(auth: Installation) -> None:
    ada = await auth.create("ada")
    sign_ins = [await auth.login("ada") for _ in range(3)]
    await update(auth, ada.id, disabled=True)
    for tokens in sign_ins:
        await refused(Code.UNAUTHENTICATED, auth.refresh(tokens.refresh_token))
    await update(auth, ada.id, disabled=False)
    await refused(Code.UNAUTHENTICATED, auth.refresh(sign_ins[0].refresh_token))
    await auth.login("ada")


async def test_no_refresh_survives_a_disable_that_races_with_it(auth: Installation) -> None:
    ada = await auth.create("ada")
    tokens = await auth.login("ada")
    refreshed, _ = await asyncio.gather(
        auth.refresh(tokens.refresh_token),
        update(auth, ada.id, disabled=True),
        return_exceptions=True,
    )
    if not isinstance(refreshed, BaseException):
        await refused(Code.UNAUTHENTICATED, auth.refresh(refreshed.refresh_token))


@pytest.mark.parametrize("change", [{"disabled": True}, {"role": Role.USER}])
async def test_the_last_admin_cannot_go(auth: Installation, change: dict[str, Any]) -> None:
    await refused(Code.CONFLICT, update(auth, auth.admin.user_id, **change))
    second = await auth.create("second", Role.ADMIN)
    await update(auth, second.id, disabled=True)
    await refused(Code.CONFLICT, update(auth, auth.admin.user_id, **change))


async def test_two_admins_who_dismiss_each_other_at_once_leave_one(auth: Installation) -> None:
    second, principal = await auth.signed_in("second", Role.ADMIN)
    outcomes = await asyncio.gather(
        update(auth, second.id, disabled=True),
        update(auth, auth.admin.user_id, principal, role=Role.USER),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, ProblemError) for outcome in outcomes) == 1
    rows = await auth.sql("SELECT 1 FROM users WHERE role = 'admin' AND NOT disabled")
    assert len(rows) == 1


async def test_one_changes_ones_password_and_stays_signed_in_only_here(auth: Installation) -> None:
    await auth.create("ada")
    here, elsewhere = await auth.login("ada"), await auth.login("ada")
    changed = ChangePassword(
        principal=await auth.verified(here),
        current_password=PASSWORD,
        new_password="another good password",
    )
    user = await auth.call(AuthMethods.CHANGE_PASSWORD, changed)
    assert user.version == 2
    await refused(Code.UNAUTHENTICATED, auth.refresh(elsewhere.refresh_token))
    await auth.refresh(here.refresh_token)
    await refused(Code.INVALID_CREDENTIALS, auth.login("ada"))
    await auth.login("ada", "another good password")
    assert (await auth.events(UserChanged))[0].changed == ("password",)


async def test_without_knowing_the_sign_in_a_new_password_ends_all(auth: Installation) -> None:
    await auth.create("ada")
    here = await auth.login("ada")
    principal = (await auth.verified(here)).model_copy(update={"sign_in": None})
    request = ChangePassword(
        principal=principal, current_password=PASSWORD, new_password="another good password"
    )
    await auth.call(AuthMethods.CHANGE_PASSWORD, request)
    await refused(Code.UNAUTHENTICATED, auth.refresh(here.refresh_token))


async def test_guessing_the_current_password_is_throttled_like_a_login(auth: Installation) -> None:
    _, principal = await auth.signed_in("ada")
    guess = ChangePassword(
        principal=principal, current_password="a guess", new_password="another good password"
    )
    for _ in range(10):
        await refused(Code.INVALID_CREDENTIALS, auth.call(AuthMethods.CHANGE_PASSWORD, guess))
    await refused(Code.TOO_MANY_REQUESTS, auth.call(AuthMethods.CHANGE_PASSWORD, guess))
    await refused(Code.TOO_MANY_REQUESTS, auth.login("ada"))


async def test_an_admin_sets_a_password_and_ends_the_users_sign_ins(auth: Installation) -> None:
    ada = await auth.create("ada")
    tokens = await auth.login("ada")
    after = await update(auth, ada.id, password="set by the admin")
    assert after.version == 2
    await refused(Code.UNAUTHENTICATED, auth.refresh(tokens.refresh_token))
    await auth.login("ada", "set by the admin")
    problem = await refused(Code.INVALID_REQUEST, update(auth, ada.id, password="aaaaaaaaaaaa"))
    assert problem.errors[0].pointer == "/password"


async def test_pages_go_through_everybody_once_in_the_order_of_names(auth: Installation) -> None:
    wanted = ["Émile", "ada", "Bob", "carol", "_dan", "Zoë", "%percent", "\U0001f600"]
    for username in wanted:
        await auth.create(username)
    seen, cursor = [], None
    while True:
        page = await listing(auth, limit=2, cursor=cursor)
        assert len(page.items) <= 2
        seen += names(page)
        if seen == ["_dan"] or "ada" in seen[-1:]:
            await auth.create(f"aaa {len(seen)}")  # before the cursor: nobody is seen twice
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen))
    assert set(wanted) | {"admin"} <= set(seen)
    assert names(await listing(auth, limit=200))[:2] == ["%percent", "_dan"]


async def test_lists_are_filtered_and_searched_by_name_display_name_and_address(
    auth: Installation,
) -> None:
    await auth.create("ada", Role.OPERATOR, display_name="Countess", email="x@lovelace.example")
    bob = await auth.create("bob_1", display_name="100% Bob")
    await auth.create("bobx1")
    await update(auth, bob.id, disabled=True)
    assert names(await listing(auth, search="ADA")) == ["ada"]
    assert names(await listing(auth, search="countess")) == ["ada"]
    assert names(await listing(auth, search="LOVELACE")) == ["ada"]
    assert names(await listing(auth, search="_")) == ["bob_1"]
    assert names(await listing(auth, search="0%")) == ["bob_1"]
    assert names(await listing(auth, search="\\")) == []
    assert names(await listing(auth, search="'; drop table users --")) == []
    assert names(await listing(auth, role=Role.ADMIN)) == ["admin"]
    assert names(await listing(auth, disabled=True)) == ["bob_1"]
    assert names(await listing(auth, role=Role.USER, disabled=False, search="bob")) == ["bobx1"]
    await refused(Code.INVALID_REQUEST, listing(auth, search="a\x00"))


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "!",
        "ü",
        base64.urlsafe_b64encode(b"usr-" + b"0" * 32).decode(),
        "0123456789abcdef",
        "AA==",
    ],
)
async def test_a_cursor_that_is_not_ours_is_refused(auth: Installation, cursor: str) -> None:
    problem = await refused(Code.INVALID_REQUEST, listing(auth, cursor=cursor))
    assert problem.errors[0].pointer == "/cursor"
