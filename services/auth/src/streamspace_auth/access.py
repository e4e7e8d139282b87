"""Who is let onto the bus: the accounts that follow from the clusters in the database.

The database is the truth and the servers have a copy. Whatever changes a cluster's access
signs, in its own transaction, the accounts that say something new by it, and has the
servers take them before the transaction ends: by then the old credential is out and the
new one in. One replica does so at a time: of two tokens of an account the servers keep the
one signed later, which has to be the one that knows more.

`reconcile` gives the servers everything again: at the start, after each reconnect, and
every few minutes. Equal tokens change nothing there. So a server that lost its volume,
or was given something by a transaction that then failed, is put right.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from streamspace_auth.ports import AccountServers, EnrolledCluster, Store, Transaction
from streamspace_common.bus import accounts
from streamspace_common.bus.accounts import Authority, Claims, ClusterKeys
from streamspace_common.bus.connection import Bus
from streamspace_common.bus.directory import publish_account
from streamspace_common.bus.errors import BusError
from streamspace_common.bus.signing import claims_of, public_key
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

RECONCILE_EVERY = 300.0
RETRY_AFTER = 5.0
"""Seconds."""
_LOCK = "bus accounts"


class NatsServers:
    """Implements `ports.AccountServers`; `bus` is a connection of the servers' own account."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def publish(self, token: str) -> None:
        try:
            await publish_account(self._bus, token)
        except BusError as error:
            log.warning("account not taken by the bus", error=str(error))
            raise ProblemError.of(
                Code.SERVICE_UNAVAILABLE,
                "The message bus does not take the change right now; try again in a moment.",
                retry_after=int(RETRY_AFTER),
            ) from error


@dataclass(frozen=True)
class _Wanted:
    account: str
    name: str
    claims: Claims


class BusAccess:
    """Keeps the servers' accounts true to the enrolled clusters.

    Args:
        authority: signs accounts.
        servers: have to know them.
    """

    def __init__(self, authority: Authority, servers: AccountServers) -> None:
        self._authority = authority
        self._servers = servers
        self._wake = asyncio.Event()

    async def apply(self, tx: Transaction) -> None:
        """Have what the transaction changed about clusters count on the bus.

        Raises:
            ProblemError: the servers do not take it; undo the transaction.
        """
        for token, changed in await self._tokens(tx):
            if changed:
                await self._servers.publish(token)

    async def reconcile(self, store: Store) -> None:
        """Give the servers every account.

        Raises:
            ProblemError: they, or the database, are away.
        """
        async with store.transaction() as tx:
            for token, _ in await self._tokens(tx):
                await self._servers.publish(token)

    def wake(self) -> None:
        """Reconcile soon: the servers may have lost what they knew."""
        self._wake.set()

    async def keep_true(self, store: Store) -> None:
        """Reconcile for ever; what is away is waited out."""
        pause = RECONCILE_EVERY
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            self._wake.clear()
            try:
                await self.reconcile(store)
                pause = RECONCILE_EVERY
            except ProblemError as error:
                log.warning("accounts not reconciled", reason=error.problem.detail)
                pause = RETRY_AFTER

    async def _tokens(self, tx: Transaction) -> list[tuple[str, bool]]:
        """All accounts' tokens, and whether each is new; `CORE`'s, of which they import, first."""
        await tx.exclusively(_LOCK)
        kept = await tx.bus_accounts.all()
        found = []
        for wanted in self._wanted(await tx.clusters.all()):
            token = self._renewed(wanted, kept.get(wanted.account), tx.now)
            if token is not None:
                await tx.bus_accounts.put(wanted.account, token)
            found.append((token or kept[wanted.account], token is not None))
        return found

    def _wanted(self, clusters: tuple[EnrolledCluster, ...]) -> Iterator[_Wanted]:
        authority = self._authority
        yield _Wanted(
            authority.core_account,
            "CORE",
            accounts.core_claims(authority.core_signing_key, public_key(authority.activation_seed)),
        )
        for cluster in clusters:
            if cluster.access is not None:
                yield _Wanted(cluster.access.account, cluster.id, self._cluster_claims(cluster))

    def _cluster_claims(self, cluster: EnrolledCluster) -> Claims:
        access = cluster.access
        if access is None:
            raise AssertionError("only clusters with an account have claims")
        open_to = ClusterKeys(cluster.issuer, access.agents_key) if cluster.is_open else None
        return accounts.cluster_claims(
            cluster.id,
            access.account,
            open_to,
            core_account=self._authority.core_account,
            activation_seed=self._authority.activation_seed,
            users_since=cluster.revoked_at or cluster.enrolled_at,
        )

    def _renewed(self, wanted: _Wanted, kept: str | None, now: datetime) -> str | None:
        """The account's token where it has to be another one than the kept."""
        before = claims_of(kept) if kept is not None else None
        same = before is not None and (
            before["nats"] == {**wanted.claims, "version": 2}
            and before["iss"] == public_key(self._authority.operator_signing_seed)
        )
        if same:
            return None
        if before is not None:
            # Servers compare by it which one is newer.
            now = max(now, datetime.fromtimestamp(before["iat"], UTC) + timedelta(seconds=1))
        return accounts.sign_account(
            self._authority.operator_signing_seed, wanted.account, wanted.name, wanted.claims, now
        ).token
