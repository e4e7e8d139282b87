"""What a valid account is, and what may become of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamspace_auth.domain.accounts import (
    Account,
    Changes,
    changed,
    check_an_admin_stays,
    check_password,
    check_version,
    checked_email,
    checked_username,
    new_user,
    username_key,
)
from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.ids import UserId, new_user_id
from streamspace_common.contracts.problems import Code, ProblemError

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def account(username: str = "ada", role: Role = Role.USER, *, disabled: bool = False) -> Account:
    user = new_user(new_user_id(), username, role=role, now=NOW).model_copy(
        update={"disabled": disabled}
    )
    return Account(user, "hash", NOW)


@contextmanager
def refused(code: Code, pointer: str | None = None) -> Iterator[pytest.ExceptionInfo[ProblemError]]:
    with pytest.raises(ProblemError) as caught:
        yield caught
    problem = caught.value.problem
    assert problem.code is code
    if pointer is not None:
        assert [error.pointer for error in problem.errors] == [pointer]


@pytest.mark.parametrize(
    "name",
    ["ada", "Ada Lovelace", "аня", "山田 太郎", "a@b.example", "x" * 255, "👩‍💻", "o'; --", "*.>"],
)
def test_free_text_is_a_valid_username(name: str) -> None:
    assert checked_username(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "a\x00b",
        "a\nb",
        "\ttab\x07",
        "x" * 256,
        "ada\u202etxt",
        "a\u2028b",
        "\ufdfa" * 255,
    ],
)
def test_names_that_cannot_be_seen_or_kept_are_refused(name: str) -> None:
    with refused(Code.INVALID_REQUEST, "/username"):
        checked_username(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada", "aDA"),
        ("straße", "STRASSE"),
        ("ﬁona", "fiona"),
        ("\uff21da", "ada"),
        (" ada ", "ada"),
    ],
)
def test_look_alikes_share_a_key(one: str, other: str) -> None:
    assert username_key(one) == username_key(other)


@given(st.text(max_size=60))
def test_a_key_is_its_own_key(text: str) -> None:
    assert username_key(username_key(text)) == username_key(text)


@pytest.mark.parametrize(
    "email", ["a@b", "ada@example.org", "o'hara+x@sub.example.org", "我@例子.公司"]
)
def test_addresses_are_taken_as_people_write_them(email: str) -> None:
    assert checked_email(email) == email


@pytest.mark.parametrize(
    "email", ["ada", "@b", "a@", "a b@c", "a@b@c", "a@.b", "a@b..c", "a@b\x00"]
)
def test_what_is_no_address_is_refused(email: str) -> None:
    with refused(Code.INVALID_REQUEST, "/email"):
        checked_email(email)


@pytest.mark.parametrize(
    "password", ["short", "x" * 1025, "aaaaaaaaaaaa", "Ada.Lovelace", "ada@example.org"]
)
def test_passwords_that_are_guessed_first_are_refused_and_never_quoted(password: str) -> None:
    user = new_user(new_user_id(), "ada.lovelace", role=Role.USER, now=NOW, email="ada@example.org")
    with refused(Code.INVALID_REQUEST, "/newPassword") as caught:
        check_password(password, user, "newPassword")
    assert password not in str(caught.value)


def test_a_long_phrase_is_a_good_password() -> None:
    check_password("correct horse battery staple", account().user)


def test_a_change_counts_only_what_differs() -> None:
    before = account()
    after, names = changed(before, Changes(role=Role.USER, display_name=""), LATER)
    assert (after, names) == (before, ())

    after, names = changed(before, Changes(role=Role.OPERATOR, display_name="Ada L."), LATER)
    assert names == ("displayName", "role")
    assert (after.user.version, after.user.updated_at) == (2, LATER)
    assert after.password_hash == "hash"


def test_an_empty_text_clears_and_none_leaves() -> None:
    named, _ = changed(account(), Changes(display_name="Ada", email="a@b.c"), NOW)
    after, names = changed(named, Changes(display_name=""), LATER)
    assert names == ("displayName",)
    assert after.user.display_name is None
    assert after.user.email == "a@b.c"


def test_a_new_password_is_a_change_by_itself() -> None:
    after, names = changed(account(), Changes(password_hash="other"), LATER)
    assert names == ("password",)
    assert (after.password_hash, after.password_changed_at, after.user.version) == (
        "other",
        LATER,
        2,
    )


def test_a_stale_version_is_refused() -> None:
    check_version(account().user, None)
    check_version(account().user, 1)
    with refused(Code.PRECONDITION_FAILED):
        check_version(account().user, 2)


@pytest.mark.parametrize("wanted", [Changes(disabled=True), Changes(role=Role.USER)])
def test_the_last_enabled_admin_stays(wanted: Changes) -> None:
    admin = account("root", Role.ADMIN)
    after, _ = changed(admin, wanted, LATER)
    with refused(Code.CONFLICT):
        check_an_admin_stays(admin, after, frozenset({admin.id}))
    check_an_admin_stays(admin, after, frozenset({admin.id, UserId("usr-" + "0" * 32)}))


def test_others_may_be_disabled_whoever_administers() -> None:
    user = account()
    after, _ = changed(user, Changes(disabled=True), LATER)
    check_an_admin_stays(user, after, frozenset())

    disabled_admin = account("old", Role.ADMIN, disabled=True)
    after, _ = changed(disabled_admin, Changes(role=Role.USER), LATER)
    check_an_admin_stays(disabled_admin, after, frozenset())
