"""Users: seen, made, changed; and one's own password."""

from uuid import UUID

from pydantic import TypeAdapter

from streamspace_auth.domain.accounts import (
    Account,
    Changes,
    changed,
    check_an_admin_stays,
    check_password,
    check_version,
    invalid,
    new_user,
)
from streamspace_auth.domain.logins import account_key
from streamspace_auth.handlers.credentials import (
    CredentialCheck,
    WrongPasswordError,
    authorised,
)
from streamspace_auth.policy import Action
from streamspace_auth.ports import Passwords, Store, Transaction, UserFilter
from streamspace_common.contracts.cursors import cursor_of, not_a_cursor, words_of
from streamspace_common.contracts.events import UserChanged, UserCreated
from streamspace_common.contracts.identity import Principal, User, user_actor
from streamspace_common.contracts.ids import UserId, UserIdText, new_message_id, new_user_id
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    AuthenticatedRequest,
    ChangePassword,
    CreateUser,
    GetUser,
    ListUsers,
    UpdateUser,
    UserPage,
)

_USER_ID: TypeAdapter[UserId] = TypeAdapter(UserIdText)


class Users:
    """Answers `get_user`, `list_users`, `create_user`, `update_user`, `change_password`."""

    def __init__(self, store: Store, passwords: Passwords, credentials: CredentialCheck) -> None:
        self._store = store
        self._passwords = passwords
        self._credentials = credentials

    async def get(self, request: GetUser) -> User:
        """One user; everybody may see themselves."""
        async with self._store.transaction() as tx:
            await authorised(tx, request.principal, Action.READ_USER, request.user_id)
            return (await _known(tx, request.user_id)).user

    async def list(self, request: ListUsers) -> UserPage:
        """Users by name; the cursor is good as long as it is needed."""
        wanted = UserFilter(request.search, request.role, request.disabled)
        if request.search and "\x00" in request.search:
            raise invalid("search", "Control characters are not allowed.")
        after = _seen(request.cursor) if request.cursor else None
        async with self._store.transaction() as tx:
            await authorised(tx, request.principal, Action.LIST_USERS)
            try:
                users, more = await tx.accounts.page(wanted, after=after, limit=request.limit)
            except KeyError:
                raise not_a_cursor() from None
        return UserPage(items=users, next_cursor=cursor_of(users[-1].id) if more else None)

    async def create(self, request: CreateUser) -> User:
        """A new user, enabled at once."""
        password = request.password.get_secret_value()
        async with self._store.transaction() as tx:
            await authorised(tx, request.principal, Action.CREATE_USER)
            user = new_user(
                new_user_id(),
                request.username,
                role=request.role,
                now=tx.now,
                display_name=request.display_name,
                email=request.email,
            )
        check_password(password, user)
        hashed = await self._passwords.hash(password)
        async with self._store.transaction() as tx:
            await tx.accounts.add(Account(user, hashed, password_changed_at=tx.now))
            await tx.emit(
                UserCreated(
                    id=str(new_message_id()),
                    at=tx.now,
                    actor=user_actor(request.principal, request.address),
                    cause=request.request_id,
                    user_id=user.id,
                    user=user,
                )
            )
        return user

    async def update(self, request: UpdateUser) -> User:
        """Change a user; disabling one and setting a password end their sign-ins at once."""
        wanted = Changes(
            display_name=request.display_name,
            email=request.email,
            role=request.role,
            disabled=request.disabled,
            password_hash=await self._hash_for(request),
        )
        async with self._store.transaction() as tx:
            await authorised(tx, request.principal, Action.CHANGE_USER)
            admins = await tx.accounts.enabled_admins()
            before = await _known(tx, request.user_id, lock=True)
            check_version(before.user, request.if_version)
            after, names = changed(before, wanted, tx.now)
            check_an_admin_stays(before, after, admins)
            if names:
                await _keep(tx, request, after, names)
        return after.user

    async def change_password(self, request: ChangePassword) -> User:
        """Set one's own password, proving the current one; other sign-ins end."""
        new = request.new_password.get_secret_value()
        async with self._store.transaction() as tx:
            account = await authorised(tx, request.principal, Action.CHANGE_OWN_PASSWORD)
        check_password(new, account.user, "newPassword")
        try:
            proven = await self._credentials.prove(
                account.user.username,
                request.current_password.get_secret_value(),
                request.address,
            )
        except WrongPasswordError:
            raise ProblemError.of(
                Code.INVALID_CREDENTIALS, "The current password is wrong."
            ) from None
        wanted = Changes(password_hash=await self._passwords.hash(new))
        async with self._store.transaction() as tx:
            before = await _known(tx, account.id, lock=True)
            if before.password_changed_at != proven.account.password_changed_at:
                raise ProblemError.of(
                    Code.CONFLICT, "The password was changed meanwhile. Use the new one."
                )
            after, names = changed(before, wanted, tx.now)
            await tx.failures.clear(account_key(account.user.username))
            await _keep(tx, request, after, names)
        return after.user

    async def _hash_for(self, request: UpdateUser) -> str | None:
        """Hash a new password outside the transaction, once it is known to be allowed."""
        if request.password is None:
            return None
        password = request.password.get_secret_value()
        async with self._store.transaction() as tx:
            await authorised(tx, request.principal, Action.CHANGE_USER)
            user = (await _known(tx, request.user_id)).user
        check_password(password, user)
        return await self._passwords.hash(password)


async def _known(tx: Transaction, user_id: UserId, *, lock: bool = False) -> Account:
    account = await tx.accounts.get(user_id, lock=lock)
    if account is None:
        raise ProblemError.of(Code.NOT_FOUND, "There is no such user.")
    return account


async def _keep(
    tx: Transaction, request: AuthenticatedRequest, after: Account, names: tuple[str, ...]
) -> None:
    """Save a changed account, end the sign-ins that must not outlive the change, tell it."""
    await tx.accounts.save(after)
    if after.user.disabled:
        await tx.families.revoke_all(after.id, tx.now)
    elif "password" in names:
        own = _sign_in(request.principal) if request.principal.user_id == after.id else None
        await tx.families.revoke_all(after.id, tx.now, but=own)
    await tx.emit(
        UserChanged(
            id=str(new_message_id()),
            at=tx.now,
            actor=user_actor(request.principal, request.address),
            cause=request.request_id,
            user_id=after.id,
            user=after.user,
            changed=names,
        )
    )


def _sign_in(principal: Principal) -> UUID | None:
    try:
        return UUID(principal.sign_in) if principal.sign_in else None
    except ValueError:
        return None


def _seen(cursor: str) -> UserId:
    """The last user of the page before; their place in the order is looked up anew."""
    [text] = words_of(cursor, 1)
    try:
        return _USER_ID.validate_python(text)
    except ValueError:
        raise not_a_cursor() from None
