"""Accounts and failed logins, in rows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, or_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from streamspace_auth.domain.accounts import Account, email_key, username_key
from streamspace_auth.ports import UserFilter
from streamspace_auth.store.rows import LoginFailureRow, UserRow
from streamspace_common.contracts.identity import Role, User
from streamspace_common.contracts.ids import UserId
from streamspace_common.contracts.problems import Code, FieldProblem, ProblemError

_TAKEN = {
    "users_username_key": ("username", "This user name is taken."),
    "users_email_key": ("email", "Another user has this e-mail address."),
}
"""Which field a violated constraint speaks of; the names stand in migration 0001."""

_ESCAPE = "\\"


class AccountRows:
    """Implements `ports.Accounts`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, user_id: UserId, *, lock: bool = False) -> Account | None:
        return await self._one(select(UserRow).where(col(UserRow.id) == user_id), lock=lock)

    async def by_name(self, username_key: str, *, lock: bool = False) -> Account | None:
        wanted = select(UserRow).where(col(UserRow.username_key) == username_key)
        return await self._one(wanted, lock=lock)

    async def any_exists(self) -> bool:
        found = await self._session.exec(select(col(UserRow.id)).limit(1))
        return found.first() is not None

    async def enabled_admins(self) -> frozenset[UserId]:
        found = await self._session.exec(
            select(col(UserRow.id))
            .where(col(UserRow.role) == Role.ADMIN, col(UserRow.disabled).is_(False))
            # One order for everybody, so that two changes of two admins wait, not deadlock.
            .order_by(col(UserRow.id))
            .with_for_update()
        )
        return frozenset(UserId(admin) for admin in found)

    async def add(self, account: Account) -> None:
        await self._write(insert(UserRow).values(id=account.id, **_values(account)))

    async def save(self, account: Account) -> None:
        await self._write(
            update(UserRow).where(col(UserRow.id) == account.id).values(**_values(account))
        )

    async def page(
        self, wanted: UserFilter, *, after: UserId | None, limit: int
    ) -> tuple[tuple[User, ...], bool]:
        query = _filtered(select(UserRow), wanted)
        if after is not None:
            found = await self._session.exec(
                select(col(UserRow.username_key)).where(col(UserRow.id) == after)
            )
            if (begin := found.first()) is None:
                raise KeyError(after)
            query = query.where(col(UserRow.username_key) > begin)
        rows = await self._session.exec(query.order_by(col(UserRow.username_key)).limit(limit + 1))
        users = tuple(_account(row).user for row in rows)
        return users[:limit], len(users) > limit

    async def _one(self, query: SelectOfScalar[UserRow], *, lock: bool) -> Account | None:
        if lock:
            query = query.with_for_update()
        # Read again after waiting for a lock: the row may have changed meanwhile.
        found = await self._session.exec(query.execution_options(populate_existing=True))
        row = found.one_or_none()
        return _account(row) if row is not None else None

    async def _write(self, statement: Any) -> None:
        try:
            await self._session.exec(statement)
        except IntegrityError as error:
            raise _taken(error) from error


class LoginFailureRows:
    """Implements `ports.LoginFailures`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def of(self, account_key: str, *, lock: bool = False) -> tuple[datetime, ...]:
        if lock:
            # Not the row: there is none before the first failure.
            await self._session.exec(
                select(func.pg_advisory_xact_lock(func.hashtextextended(account_key, 0)))
            )
        found = await self._session.exec(
            select(col(LoginFailureRow.failed_at)).where(
                col(LoginFailureRow.account_key) == account_key
            )
        )
        return tuple(found.first() or ())

    async def put(self, account_key: str, failures: Sequence[datetime]) -> None:
        values = {"failed_at": list(failures), "last_failed_at": max(failures)}
        await self._session.exec(
            insert(LoginFailureRow)
            .values(account_key=account_key, **values)
            .on_conflict_do_update(index_elements=["account_key"], set_=values)
        )

    async def clear(self, account_key: str) -> None:
        await self._session.exec(
            delete(LoginFailureRow).where(col(LoginFailureRow.account_key) == account_key)
        )

    async def forget_before(self, moment: datetime) -> int:
        gone = await self._session.exec(
            delete(LoginFailureRow).where(col(LoginFailureRow.last_failed_at) < moment)
        )
        return cast("CursorResult[tuple[()]]", gone).rowcount


def _account(row: UserRow) -> Account:
    return Account(
        user=User(
            id=UserId(row.id),
            username=row.username,
            display_name=row.display_name,
            email=row.email,
            role=Role(row.role),
            disabled=row.disabled,
            created_at=row.created_at,
            updated_at=row.updated_at,
            last_login_at=row.last_login_at,
            version=row.version,
        ),
        password_hash=row.password_hash,
        password_changed_at=row.password_changed_at,
    )


def _values(account: Account) -> dict[str, Any]:
    user = account.user
    return {
        "username": user.username,
        "username_key": username_key(user.username),
        "display_name": user.display_name,
        "email": user.email,
        "email_key": email_key(user.email) if user.email else None,
        "role": user.role.value,
        "disabled": user.disabled,
        "password_hash": account.password_hash,
        "password_changed_at": account.password_changed_at,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
        "last_login_at": user.last_login_at,
        "version": user.version,
    }


def _filtered(query: SelectOfScalar[UserRow], wanted: UserFilter) -> SelectOfScalar[UserRow]:
    if wanted.role is not None:
        query = query.where(col(UserRow.role) == wanted.role.value)
    if wanted.disabled is not None:
        query = query.where(col(UserRow.disabled).is_(wanted.disabled))
    if wanted.search:
        key = _containing(username_key(wanted.search))
        text = _containing(wanted.search)
        query = query.where(
            or_(
                col(UserRow.username_key).like(key, escape=_ESCAPE),
                col(UserRow.display_name).ilike(text, escape=_ESCAPE),
                col(UserRow.email).ilike(text, escape=_ESCAPE),
            )
        )
    return query


def _containing(text: str) -> str:
    """A LIKE pattern in which the text's own wildcards are only themselves."""
    for special in (_ESCAPE, "%", "_"):
        text = text.replace(special, _ESCAPE + special)
    return f"%{text}%"


def _taken(error: IntegrityError) -> Exception:
    cause = getattr(error.orig, "__cause__", None)
    constraint = getattr(cause, "constraint_name", None)
    if constraint not in _TAKEN:
        return error
    field, detail = _TAKEN[constraint]
    return ProblemError.of(
        Code.ALREADY_EXISTS, detail, errors=(FieldProblem(pointer=f"/{field}", detail=detail),)
    )
