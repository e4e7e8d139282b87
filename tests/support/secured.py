"""A NATS server in operator mode with enrolled clusters, and connections of everybody there.

The accounts are made as auth makes them, with its own functions and without a database. A
test may take named defences away, to show that what it holds against an attack is that.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import uuid4

from streamspace_common.bus import Bus, Identity, ensure_durable, provision
from streamspace_common.bus import accounts as bus_accounts
from streamspace_common.bus import credentials as bus_credentials
from streamspace_common.bus.accounts import ClusterKeys
from streamspace_common.bus.credentials import Issuer, Trust
from streamspace_common.bus.directory import publish_account
from streamspace_common.bus.signing import KeyKind, new_seed, now, public_key
from streamspace_common.contracts import permissions
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.permissions import Permissions
from streamspace_common.contracts.streams import EVENTS, agent_durable
from streamspace_common.testing.nats import NatsServer
from streamspace_embedded.ports import free_port


class Defence(Enum):
    """What stands between one cluster and everything else."""

    ACCOUNT = "each cluster has an account of its own"
    RIGHTS = "each credential has an allow-list"
    STREAMS = "no header of a message can remove or redirect others"
    IDS = "nobody can guess another one's message ids"
    SIGNATURE = "accounts are signed by the operator"
    ACTIVATION = "an account imports what it was activated for"


ALL = frozenset(Defence)
EVERYTHING = Permissions(publish=(">",), subscribe=(">",), inbox="_INBOX_anybody")


class Enrolled:
    """One cluster's account and the seeds that sign its users."""

    def __init__(self, cluster: ClusterId) -> None:
        self.cluster = cluster
        self.account = public_key(new_seed(KeyKind.ACCOUNT))
        self.joining, self.agents = new_seed(KeyKind.ACCOUNT), new_seed(KeyKind.ACCOUNT)

    @property
    def keys(self) -> ClusterKeys:
        return ClusterKeys(public_key(self.joining), public_key(self.agents))


class Secured:
    """The server; `defences` are those that the attacker of `attacker` meets."""

    def __init__(
        self,
        directory: Path,
        *,
        defences: Iterable[Defence] = ALL,
        newer_acknowledgements: bool = False,
    ) -> None:
        self.trust = Trust.new()
        self.directory = directory
        self.defences = frozenset(defences)
        port = free_port()
        config = bus_credentials.server_config(self.trust, port=port, store_dir=directory / "store")
        if newer_acknowledgements:
            config = f"feature_flags {{ js_ack_fc_v2: true }}\n{config}"
        self.server = NatsServer(directory, config=config, port=port)
        self.open: list[Bus] = []
        self.clusters: dict[ClusterId, Enrolled] = {}
        self._servers: Bus | None = None
        self._core: Any = None

    async def close(self) -> None:
        for bus in self.open:
            await bus.close()

    # Accounts.

    async def enrol(self, *clusters: ClusterId) -> None:
        """Let clusters in, as auth does."""
        await self._give_core()
        for cluster in clusters:
            enrolled = self.clusters.setdefault(cluster, Enrolled(cluster))
            await self.give(self.token_of(enrolled))

    async def _give_core(self) -> None:
        authority = self.trust.authority
        claims = bus_accounts.core_claims(
            authority.core_signing_key,
            public_key(authority.activation_seed),
        )
        if Defence.ACTIVATION not in self.defences:
            for export in claims["exports"]:
                del export["token_req"]
        if claims != self._core:
            await self.give(self.signed(authority.core_account, "CORE", claims))
            self._core = claims

    def claims_of(self, enrolled: Enrolled, *, users_since: datetime | None = None) -> Any:
        authority = self.trust.authority
        return bus_accounts.cluster_claims(
            enrolled.cluster,
            enrolled.account,
            enrolled.keys,
            core_account=authority.core_account,
            activation_seed=authority.activation_seed,
            users_since=users_since or datetime.fromtimestamp(1, now().tzinfo),
        )

    def token_of(self, enrolled: Enrolled, *, users_since: datetime | None = None) -> str:
        claims = self.claims_of(enrolled, users_since=users_since)
        return self.signed(enrolled.account, enrolled.cluster, claims)

    def signed(self, account: str, name: str, claims: Any, seed: str | None = None) -> str:
        seed = seed or self.trust.operator_signing_seed
        return bus_accounts.sign_account(seed, account, name, claims, now()).token

    async def give(self, token: str) -> None:
        if self._servers is None:
            self._servers = await self._by_file(
                "accounts",
                bus_credentials.account_credentials(self.trust),
                permissions.ACCOUNTS.inbox,
            )
        await publish_account(self._servers, token)

    # Connections.

    async def service(self, name: str) -> Bus:
        return await self._by_file(
            name,
            bus_credentials.service_credentials(self.trust.services, name),
            permissions.SERVICES[name].inbox,
        )

    async def agent(self, cluster: ClusterId) -> Bus:
        return await self.connect(self.user(cluster), permissions.agent(cluster).inbox)

    async def joining(self, cluster: ClusterId) -> Bus:
        enrolled = self.clusters[cluster]
        user = self.user(cluster, signing_seed=enrolled.joining)
        return await self.connect(user, permissions.joining(cluster).inbox)

    def user(
        self,
        cluster: ClusterId,
        *,
        signing_seed: str | None = None,
        expires_at: datetime | None = None,
    ) -> Identity:
        enrolled = self.clusters[cluster]
        identity = Identity.fresh()
        identity.token = bus_credentials.mint_scoped_user(
            Issuer(account=enrolled.account, signing_seed=signing_seed or enrolled.agents),
            identity.public_key,
            f"agent-{cluster}",
            issued_at=now(),
            expires_at=expires_at,
        )
        return identity

    def renewed(self, cluster: ClusterId, identity: Identity) -> str:
        """Another token for the same key."""
        enrolled = self.clusters[cluster]
        return bus_credentials.mint_scoped_user(
            Issuer(account=enrolled.account, signing_seed=enrolled.agents),
            identity.public_key,
            f"agent-{cluster}",
            issued_at=now(),
        )

    async def attacker(self, cluster: ClusterId) -> Bus:
        """An agent of `cluster` that is somebody else's now, behind what defences there are."""
        own_account, rights = (each in self.defences for each in (Defence.ACCOUNT, Defence.RIGHTS))
        allowed = permissions.agent(cluster) if rights else EVERYTHING
        if not own_account:
            return await self._by_file(
                "attacker",
                bus_credentials.mint_user(allowed, "attacker", self.trust.services),
                allowed.inbox,
            )
        enrolled = self.clusters[cluster]
        if not rights:
            claims = self.claims_of(enrolled)
            for scope in claims["signing_keys"]:
                scope["template"] = bus_accounts.permission_claims(EVERYTHING)
            await self.give(self.signed(enrolled.account, cluster, claims))
        return await self.connect(self.user(cluster), allowed.inbox)

    async def intruder(self, service: str) -> Bus:
        """A service that is somebody else's now."""
        allowed = permissions.SERVICES[service] if Defence.RIGHTS in self.defences else EVERYTHING
        credentials = bus_credentials.mint_user(allowed, service, self.trust.services)
        return await self._by_file(service, credentials, allowed.inbox)

    async def anybody(self) -> Bus:
        """Somebody of the control plane who may do everything; StreamSpace has nobody like it."""
        credentials = bus_credentials.mint_user(EVERYTHING, "anybody", self.trust.services)
        return await self._by_file("anybody", credentials, EVERYTHING.inbox)

    async def connect(self, identity: Identity, inbox: str, **more: Any) -> Bus:
        bus = await Bus.connect(
            self.server.url, name="agent", credentials=identity, inbox=inbox, **more
        )
        self.open.append(bus)
        return bus

    async def _by_file(self, name: str, credentials: str, inbox: str) -> Bus:
        path = self.directory / f"{name}-{uuid4().hex}.creds"
        path.write_text(credentials)
        bus = await Bus.connect(self.server.url, name=name, credentials=path, inbox=inbox)
        self.open.append(bus)
        return bus

    # Streams.

    async def streams(self, session: Bus) -> None:
        """Those of StreamSpace, and the clusters' consumers."""
        await provision(session)
        for cluster in self.clusters:
            await ensure_durable(session, agent_durable(cluster))
        if Defence.STREAMS not in self.defences:
            config = (await session.link.api(f"STREAM.INFO.{EVENTS.name}"))["config"]
            await session.link.api(f"STREAM.DELETE.{EVENTS.name}")
            loose = {
                "deny_delete": False,
                "deny_purge": False,
                "allow_rollup_hdrs": True,
                "allow_msg_schedules": True,
                "allow_msg_ttl": True,
            }
            await session.link.api(f"STREAM.CREATE.{EVENTS.name}", {**config, **loose})


def body(payload: bytes) -> Any:
    """The JSON that JetStream answers with."""
    return json.loads(payload or b"{}")
