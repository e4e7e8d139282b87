"""Proving who somebody is: one guarded way to check a password, wherever it is typed.

The order matters. One account's tries are judged one after another, and only as
many at a time as there are hash threads, so a thousand guesses sent at once meet
the limit as surely as a thousand sent in a row (each further replica adds at most
one guess). Limits are looked at before the password is: a refused try costs no
hashing and tells nothing.
"""

import asyncio
from dataclasses import dataclass
from weakref import WeakValueDictionary

from streamspace_auth.domain.accounts import Account, checked_username, username_key
from streamspace_auth.domain.logins import (
    FailureLimit,
    account_key,
    too_many,
    wait,
    with_failure,
)
from streamspace_auth.policy import Action, require
from streamspace_auth.ports import AddressLimit, Passwords, Store, Transaction
from streamspace_common.contracts.identity import Principal
from streamspace_common.contracts.ids import UserId
from streamspace_common.contracts.problems import Code, ProblemError


@dataclass(frozen=True)
class Proven:
    """An account whose password was just given; `upgraded` replaces its older hash."""

    account: Account
    upgraded: str | None


class WrongPasswordError(Exception):
    """No such user, or not their password; `user_id` is known only to us."""

    def __init__(self, user_id: UserId | None) -> None:
        super().__init__("wrong user name or password")
        self.user_id = user_id


class CredentialCheck:
    """Checks a name and a password, and counts what fails."""

    def __init__(
        self,
        store: Store,
        passwords: Passwords,
        addresses: AddressLimit,
        *,
        limit: FailureLimit,
        at_once: int,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._addresses = addresses
        self._limit = limit
        self._slots = asyncio.Semaphore(at_once)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def prove(self, username: str, password: str, address: str | None) -> Proven:
        """The account that name and password belong to.

        The caller clears the account's failures in the transaction in which it acts.

        Raises:
            WrongPasswordError: they belong to none; the failure is counted.
            ProblemError: `too-many-requests`, without a look at the password.
        """
        key = account_key(username)
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn, self._slots:
            self._addresses.check(address)
            account = await self._account_that_may_try(username, key)
            result = await self._passwords.check(
                password, account.password_hash if account else None
            )
            if account is None or not result.matches:
                self._addresses.count(address)
                await self._count(key)
                raise WrongPasswordError(account.id if account else None)
        return Proven(account, result.upgraded)

    async def _account_that_may_try(self, username: str, key: str) -> Account | None:
        async with self._store.transaction() as tx:
            failures = await tx.failures.of(key)
            if (pause := wait(failures, tx.now, self._limit)) is not None:
                raise too_many(pause)
            try:
                name = checked_username(username)
            except ProblemError:
                return None  # Nobody can bear such a name; answered like any unknown one.
            return await tx.accounts.by_name(username_key(name))

    async def _count(self, key: str) -> None:
        async with self._store.transaction() as tx:
            failures = await tx.failures.of(key, lock=True)
            await tx.failures.put(key, with_failure(failures, tx.now, self._limit))


async def authorised(
    tx: Transaction, principal: Principal, action: Action, about: UserId | None = None
) -> Account:
    """The caller's account, if it may do this *now*.

    An access token repeats what was true when it was issued. Here, where the truth
    is kept, a role taken away or a disabled account counts at once.

    Raises:
        ProblemError: `unauthenticated`, `account-disabled` or `forbidden`.
    """
    account = await tx.accounts.get(principal.user_id)
    if account is None:
        raise ProblemError.of(Code.UNAUTHENTICATED, "This user is not known. Sign in again.")
    if account.user.disabled:
        raise account_disabled()
    require(principal.model_copy(update={"role": account.user.role}), action, about)
    return account


def account_disabled() -> ProblemError:
    return ProblemError.of(
        Code.ACCOUNT_DISABLED, "This account is disabled. Ask an administrator to enable it."
    )
