"""Accounts: what a valid one is, and what may be changed about it.

A username is free text, because people are called all sorts of things; it is
compared by its `username_key`, so that nobody can register a look-alike that
differs in case or in a compatibility form only. Everything that a person may
type is checked here, and an invalid field names itself in the problem raised.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic.alias_generators import to_camel

from streamspace_common.contracts.identity import Role, User
from streamspace_common.contracts.ids import UserId
from streamspace_common.contracts.problems import Code, FieldProblem, ProblemError

USERNAME_LENGTH = 255
USERNAME_KEY_BYTES = 1020
"""Some characters fold to eighteen others; an index entry has no room for 255 of them."""
DISPLAY_NAME_LENGTH = 255
EMAIL_LENGTH = 320
PASSWORD_LENGTHS = range(10, 1025)
DISTINCT_CHARACTERS = 5
"""A password of fewer different characters is guessed at once, however long it is."""

_EMAIL = re.compile(r"^[^@\s]+@[^@\s.]+(\.[^@\s.]+)*$")
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They reorder what surrounds them: a name could pose as another one in a list."""


@dataclass(frozen=True)
class Account:
    """A user with what proves it is them; the hash never leaves the service."""

    user: User
    password_hash: str
    password_changed_at: datetime

    @property
    def id(self) -> UserId:
        return self.user.id

    @property
    def is_enabled_admin(self) -> bool:
        return self.user.role is Role.ADMIN and not self.user.disabled


@dataclass(frozen=True)
class Changes:
    """What is asked to change; None leaves a field, an empty text clears it."""

    display_name: str | None = None
    email: str | None = None
    role: Role | None = None
    disabled: bool | None = None
    password_hash: str | None = None


def invalid(field: str, detail: str) -> ProblemError:
    """The problem of one field, named as the API names it."""
    return ProblemError.of(
        Code.INVALID_REQUEST, detail, errors=(FieldProblem(pointer=f"/{field}", detail=detail),)
    )


def username_key(username: str) -> str:
    """The form in which usernames are unique and sorted: NFKC, folded, trimmed."""
    folded = unicodedata.normalize("NFKC", username).casefold()
    return unicodedata.normalize("NFKC", folded).strip()


def email_key(email: str) -> str:
    """The form in which addresses are unique; no real mail server tells case apart."""
    return email.casefold()


def checked_text(text: str, field: str, max_length: int) -> str:
    """`text` without surrounding blanks.

    Raises:
        ProblemError: `invalid-request` when it is too long or holds characters
            that cannot be seen.
    """
    trimmed = text.strip()
    if len(trimmed) > max_length:
        raise invalid(field, f"Use at most {max_length} characters.")
    for character in trimmed:
        if unicodedata.category(character) in _UNSEEN_CATEGORIES or character in _DIRECTION_MARKS:
            raise invalid(field, "Control characters and text direction marks are not allowed.")
    return trimmed


def checked_username(username: str) -> str:
    trimmed = checked_text(username, "username", USERNAME_LENGTH)
    key = username_key(trimmed)
    if not key:
        raise invalid("username", "A user name needs at least one character.")
    if len(key.encode()) > USERNAME_KEY_BYTES:
        raise invalid("username", "This name is too long once it is written out. Shorten it.")
    return trimmed


def checked_display_name(display_name: str) -> str | None:
    """None for an empty one."""
    return checked_text(display_name, "displayName", DISPLAY_NAME_LENGTH) or None


def checked_email(email: str) -> str | None:
    """None for an empty one; otherwise something that could be an address."""
    trimmed = checked_text(email, "email", EMAIL_LENGTH)
    if not trimmed:
        return None
    if not _EMAIL.match(trimmed):
        raise invalid("email", "This is not an e-mail address.")
    return trimmed


def check_password(password: str, user: User, field: str = "password") -> None:
    """Refuse what is guessed first: short, uniform, or the user's own name or address.

    Raises:
        ProblemError: `invalid-request`, never quoting the password.
    """
    if len(password) not in PASSWORD_LENGTHS:
        raise invalid(
            field,
            f"Use {PASSWORD_LENGTHS.start} to {PASSWORD_LENGTHS.stop - 1} characters.",
        )
    if len(set(password)) < DISTINCT_CHARACTERS:
        raise invalid(field, f"Use at least {DISTINCT_CHARACTERS} different characters.")
    own = {username_key(user.username)}
    if user.email:
        own.add(username_key(user.email))
    if username_key(password) in own:
        raise invalid(field, "A password must differ from the user name and the e-mail address.")


def new_user(
    user_id: UserId,
    username: str,
    *,
    role: Role,
    now: datetime,
    display_name: str | None = None,
    email: str | None = None,
) -> User:
    """A fresh user with every field checked.

    Raises:
        ProblemError: `invalid-request` for the first field that is not valid.
    """
    return User(
        id=user_id,
        username=checked_username(username),
        display_name=checked_display_name(display_name or ""),
        email=checked_email(email or ""),
        role=role,
        created_at=now,
        updated_at=now,
        version=1,
    )


def changed(account: Account, changes: Changes, now: datetime) -> tuple[Account, tuple[str, ...]]:
    """The account after `changes`, and the fields that really differ, as the API names them.

    The version grows by one where anything differs. A password always does.

    Raises:
        ProblemError: `invalid-request` for the first field that is not valid.
    """
    wanted = _wanted(account.user, changes)
    names = [to_camel(name) for name in wanted if getattr(account.user, name) != wanted[name]]
    if changes.password_hash is not None:
        account = replace(account, password_hash=changes.password_hash, password_changed_at=now)
        names.append("password")
    if names:
        wanted |= {"version": account.user.version + 1, "updated_at": now}
        account = replace(account, user=account.user.model_copy(update=wanted))
    return account, tuple(names)


def _wanted(user: User, changes: Changes) -> dict[str, object]:
    wanted: dict[str, object] = {}
    if changes.display_name is not None:
        wanted["display_name"] = checked_display_name(changes.display_name)
    if changes.email is not None:
        wanted["email"] = checked_email(changes.email)
    if changes.role is not None:
        wanted["role"] = changes.role
    if changes.disabled is not None:
        wanted["disabled"] = changes.disabled
    return wanted


def check_version(user: User, if_version: int | None) -> None:
    """Refuse a change that was decided on an older state of the user.

    Raises:
        ProblemError: `precondition-failed`.
    """
    if if_version is not None and if_version != user.version:
        raise ProblemError.of(
            Code.PRECONDITION_FAILED,
            f"The user is at version {user.version} by now. Read it again, then change it.",
        )


def check_an_admin_stays(
    before: Account, after: Account, enabled_admins: frozenset[UserId]
) -> None:
    """Refuse what would leave nobody able to administer the installation.

    Args:
        before: The account as it is.
        after: The account as it would become.
        enabled_admins: Everybody who is an enabled admin now.

    Raises:
        ProblemError: `conflict`.
    """
    resigns = before.is_enabled_admin and not after.is_enabled_admin
    if resigns and not enabled_admins - {before.id}:
        raise ProblemError.of(
            Code.CONFLICT,
            "This is the last enabled administrator. Make another user an administrator first.",
        )
