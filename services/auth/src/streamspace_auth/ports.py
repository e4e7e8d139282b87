"""What the handlers need from outside, in their own words.

`Store.transaction` is one unit of work: everything done in its block is kept
together with the events given to `emit`, or not at all. Rows are locked where the
docstring says so; whoever locks several locks users before sign-in families, so
that no two transactions wait for each other.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from streamspace_auth.domain.accounts import Account
from streamspace_auth.domain.families import Family, RefreshToken
from streamspace_auth.domain.logins import LoginResult
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.events import CoreEvent
from streamspace_common.contracts.identity import Role, User
from streamspace_common.contracts.ids import ClusterId, UserId
from streamspace_common.contracts.requests import KeySet


@dataclass(frozen=True)
class UserFilter:
    search: str | None = None
    role: Role | None = None
    disabled: bool | None = None


@dataclass(frozen=True)
class ClusterAccess:
    """A cluster's account on the bus, and the key that signs its agents' credentials."""

    account: str
    agents_key: str
    sealed_agents_seed: bytes


@dataclass(frozen=True)
class EnrolledCluster:
    """A cluster that may join.

    `credential` is the public key of its enrolment's NATS user, `issuer` the key that
    signed it. Users issued before `enrolled_at` are revoked, and all of them once
    `revoked_at` is set. `access` is None for one enrolled by a version that had one account
    for all of them, which lets nobody in any more.
    """

    id: ClusterId
    name: str
    credential: str
    issuer: str
    created_at: datetime
    enrolled_at: datetime
    revoked_at: datetime | None = None
    access: ClusterAccess | None = None

    @property
    def is_open(self) -> bool:
        """Whether agents are let in."""
        return self.access is not None and self.revoked_at is None


@dataclass(frozen=True)
class MintedEnrolment:
    """A fresh enrolment with what is kept of it."""

    enrolment: Enrolment
    credential: str
    issuer: str
    access: ClusterAccess


class Accounts(Protocol):
    async def get(self, user_id: UserId, *, lock: bool = False) -> Account | None: ...

    async def by_name(self, username_key: str, *, lock: bool = False) -> Account | None: ...

    async def any_exists(self) -> bool: ...

    async def enabled_admins(self) -> frozenset[UserId]:
        """Everybody who is one, locked: call it before the account in question is locked."""
        ...

    async def add(self, account: Account) -> None:
        """Raises ProblemError `already-exists` for a taken username or e-mail address."""
        ...

    async def save(self, account: Account) -> None:
        """Raises ProblemError `already-exists` for a taken e-mail address."""
        ...

    async def page(
        self, wanted: UserFilter, *, after: UserId | None, limit: int
    ) -> tuple[tuple[User, ...], bool]:
        """Users in the order of their username keys, and whether more follow.

        Raises:
            KeyError: there is no user `after` which to begin.
        """
        ...


class LoginFailures(Protocol):
    async def of(self, account_key: str, *, lock: bool = False) -> tuple[datetime, ...]: ...

    async def put(self, account_key: str, failures: Sequence[datetime]) -> None: ...

    async def clear(self, account_key: str) -> None: ...

    async def forget_before(self, moment: datetime) -> int:
        """Drop the counters without a failure since then; returns how many."""
        ...


class Families(Protocol):
    async def add(self, family: Family, first: RefreshToken) -> None: ...

    async def find(self, digest: bytes) -> tuple[Family, RefreshToken] | None:
        """The token and its family, the family locked."""
        ...

    async def rotate(self, token: RefreshToken, successor: RefreshToken) -> None:
        """Spend `token` and all its siblings at `successor.issued_at`; keep the successor."""
        ...

    async def add_successor(self, successor: RefreshToken) -> None: ...

    async def revoke(self, family: Family, now: datetime) -> None: ...

    async def revoke_all(
        self, user_id: UserId, now: datetime, *, but: UUID | None = None
    ) -> int: ...

    async def forget_before(self, moment: datetime) -> int:
        """Drop families that ended before then, with their tokens; returns how many."""
        ...


class Clusters(Protocol):
    async def get(self, cluster_id: ClusterId, *, lock: bool = False) -> EnrolledCluster | None: ...

    async def all(self) -> tuple[EnrolledCluster, ...]: ...

    async def put(self, cluster: EnrolledCluster) -> None: ...

    async def remove(self, cluster_id: ClusterId, now: datetime) -> None: ...

    async def was_removed(self, cluster_id: ClusterId) -> bool:
        """Whether it was, and has not been enrolled again since."""
        ...


class BusAccounts(Protocol):
    """Accounts' tokens as the servers were last given them, by the accounts' public keys."""

    async def all(self) -> dict[str, str]: ...

    async def put(self, account: str, token: str) -> None: ...

    async def forget(self, account: str) -> None: ...


class Transaction(Protocol):
    """One unit of work; `now` is the database's clock when it began."""

    now: datetime
    accounts: Accounts
    failures: LoginFailures
    families: Families
    clusters: Clusters
    bus_accounts: BusAccounts

    async def emit(self, event: CoreEvent) -> None:
        """Publish `event` if, and only if, this transaction is kept."""
        ...

    async def exclusively(self, what: str) -> None:
        """Wait until no other replica does `what`; ends with the transaction."""
        ...


class Store(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[Transaction]: ...


@dataclass(frozen=True)
class PasswordCheck:
    """`upgraded` is a hash with today's parameters, where the kept one has older ones."""

    matches: bool
    upgraded: str | None = None


class Passwords(Protocol):
    async def hash(self, password: str) -> str: ...

    async def check(self, password: str, kept: str | None) -> PasswordCheck:
        """Compare; None for a user that does not exist takes as long and never matches."""
        ...


class AddressLimit(Protocol):
    """Failures per client address, as this process has seen them."""

    def check(self, address: str | None) -> None:
        """Raises ProblemError `too-many-requests`."""
        ...

    def count(self, address: str | None) -> None:
        """Remember one more failure."""
        ...


class AccessTokens(Protocol):
    @property
    def lifetime(self) -> int:
        """Seconds."""
        ...

    def issue(self, user: User, sign_in: UUID, now: datetime) -> str: ...

    def public_keys(self) -> KeySet: ...


class Enroller(Protocol):
    """Mints what agents join with."""

    def mint(self, cluster_id: ClusterId, now: datetime, *, account: str | None) -> MintedEnrolment:
        """An enrolment with fresh keys; `account` is the cluster's own, None for a new one."""
        ...

    def agent_token(
        self, cluster: EnrolledCluster, user: str, now: datetime, expires_at: datetime
    ) -> str:
        """A working credential for the holder of the key `user`.

        Raises:
            ProblemError: `invalid-request` for what is no user's key.
        """
        ...

    def user_of(self, enrolment: Enrolment) -> str | None:
        """The public key of its NATS user; None where it holds no credential at all."""
        ...

    def relocated(self, enrolment: Enrolment) -> Enrolment:
        """The same credential, with the addresses that are valid today."""
        ...


class AccountServers(Protocol):
    """Whoever must know accounts: the NATS servers."""

    async def publish(self, token: str) -> None:
        """Have an account's token count, at once.

        Raises:
            ProblemError: `service-unavailable`: they do not answer, or refuse it.
        """
        ...


class LoginMeter(Protocol):
    def count(self, result: LoginResult) -> None: ...
