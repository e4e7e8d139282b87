"""Who shares what on the bus: the accounts of an installation, as NATS account tokens.

An account is a bus of its own; what two of them share is exported by one and imported by
the other, by name. `SYS` is the servers' own. `CORE` holds JetStream and the services.
Each cluster has an account, without storage, that imports of `CORE` its own cluster's
subjects alone: pulling and settling its commands, its events and heartbeats, asking auth
for its agents' credentials, and the requests to its agents, with where they are answered.

The division matters although every agent's permissions name its cluster: the server does
not check the *reply* subject of a publish, so an agent in `CORE`, or two clusters in one
account, could have the acknowledgement of an event written to `cmd.<other cluster>.<session>`
and so replace that cluster's command. In an account of its own the reply leads nowhere.

`CORE`'s exports are private: to import one takes an activation, a token signed by a key
of `CORE` that names the account and the subject. An account that was made to name another
cluster's subjects gets nothing.

`CORE` imports nothing, so its token is the same whatever clusters there are. It matters:
when a server takes another token of `CORE`, answers to requests that clusters have made and
that are still open, such as the pulls of all agents, lead nowhere any more (nats-server 2.15.1).

All functions are pure.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamspace_common.bus.signing import sign
from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.permissions import (
    CORE_EXPORTS,
    Permissions,
    Shared,
    agent,
    cluster_imports,
    joining,
)

RESPONSE_TTL_SECONDS = 120
UNLIMITED = -1
_CLUSTER_CONNECTIONS = 512
"""Agents of one cluster, and their renewals; more is a fault or an attack."""
_CLUSTER_SUBSCRIPTIONS = 8192

Claims = dict[str, Any]


@dataclass(frozen=True)
class Account:
    """An account's public key and token."""

    public: str
    token: str


class Authority(Contract):
    """What it takes to let clusters in: what auth is given of an installation's trust.

    It can make accounts, and activations of `CORE`'s exports; it cannot make a user of `CORE`.
    """

    operator_signing_seed: str
    activation_seed: str
    core_account: str
    core_signing_key: str


@dataclass(frozen=True)
class ClusterKeys:
    """The public keys that sign a cluster's users: its enrolment, and its agents."""

    joining: str
    agents: str


def system_claims() -> Claims:
    return _claims(connections=UNLIMITED)


def core_claims(signing_key: str, activation_key: str) -> Claims:
    """What `CORE` is.

    Args:
        signing_key: signs services' and operators' users.
        activation_key: signs activations; users it signed could do nothing at all.
    """
    return _claims(
        connections=UNLIMITED,
        storage=UNLIMITED,
        signing_keys=[signing_key, _scoped(activation_key, "activations", _NOTHING)],
        exports=[{**_export(each), "token_req": True} for each in CORE_EXPORTS],
    )


def cluster_claims(
    cluster: ClusterId,
    account: str,
    keys: ClusterKeys | None,
    *,
    core_account: str,
    activation_seed: str,
    users_since: datetime,
) -> Claims:
    """What a cluster's account is.

    Args:
        cluster: whose subjects it reaches.
        account: its public key.
        keys: whose users are let in; None for nobody's.
        core_account: exports those subjects.
        activation_seed: allows the account to import them.
        users_since: users issued before are revoked, connected ones at once.
    """
    signers = (
        [
            _scoped(keys.joining, "joining", joining(cluster)),
            _scoped(keys.agents, "agents", agent(cluster)),
        ]
        if keys
        else []
    )
    imports = [
        {
            **_shared(shared),
            "account": core_account,
            "token": _activation(activation_seed, core_account, account, shared),
        }
        for shared in cluster_imports(cluster)
    ]
    return _claims(
        connections=_CLUSTER_CONNECTIONS,
        subscriptions=_CLUSTER_SUBSCRIPTIONS,
        signing_keys=signers,
        imports=imports,
        # Whole seconds, and inclusive: what is issued in this second is valid.
        revocations={"*": int(users_since.timestamp()) - 1},
    )


def sign_account(
    operator_seed: str, public: str, name: str, claims: Claims, issued_at: datetime
) -> Account:
    """An account's token. A server that has a newer one (`issued_at`) keeps that."""
    return Account(
        public, sign(operator_seed, subject=public, name=name, claims=claims, issued_at=issued_at)
    )


def permission_claims(permissions: Permissions) -> Claims:
    """Permissions by the names that a user's token, or a signing key's scope, has for them."""
    return {
        # An empty list would allow everything.
        "pub": _allowed(permissions.publish),
        "sub": _allowed(permissions.subscribe),
        # Answers go to inboxes that no allow-list can name.
        **(
            {"resp": {"max": permissions.responses, "ttl": RESPONSE_TTL_SECONDS * 10**9}}
            if permissions.responses
            else {}
        ),
        "subs": UNLIMITED,
        "data": UNLIMITED,
        "payload": UNLIMITED,
    }


_NOTHING = Permissions(publish=(), subscribe=(), inbox="", responses=0)


def _allowed(subjects: tuple[str, ...]) -> dict[str, list[str]]:
    return {"allow": list(subjects)} if subjects else {"deny": [">"]}


def _scoped(key: str, role: str, permissions: Permissions) -> Claims:
    """A signing key whose users have these permissions, and none that they bring."""
    return {
        "kind": "user_scope",
        "key": key,
        "role": role,
        "template": permission_claims(permissions),
    }


def _shared(shared: Shared) -> Claims:
    return {"name": shared.name, "subject": shared.subject, "type": _kind(shared)}


def _export(shared: Shared) -> Claims:
    if shared.heard:
        return _shared(shared)
    answers = "Stream" if shared.many_answers else "Singleton"
    return {**_shared(shared), "response_type": answers}


def _kind(shared: Shared) -> str:
    return "stream" if shared.heard else "service"


def _activation(seed: str, core_account: str, account: str, shared: Shared) -> str:
    return sign(
        seed,
        subject=account,
        name=shared.name,
        claims={
            "type": "activation",
            "subject": shared.subject,
            "kind": _kind(shared),
            "issuer_account": core_account,
        },
        # Always the same, so that an account's token is new only when it says something new.
        issued_at=_LONG_AGO,
    )


_LONG_AGO = datetime.fromisoformat("2020-01-01T00:00:00+00:00")
PRELOADED_AT = _LONG_AGO
"""Of the tokens a server starts with: whatever was pushed to it since is newer."""


def _claims(
    *,
    connections: int,
    subscriptions: int = UNLIMITED,
    storage: int = 0,
    signing_keys: list[Any] | None = None,
    exports: list[Claims] | None = None,
    imports: list[Claims] | None = None,
    revocations: dict[str, int] | None = None,
) -> Claims:
    return {
        "type": "account",
        "signing_keys": signing_keys or [],
        "exports": exports or [],
        "imports": imports or [],
        **({"revocations": revocations} if revocations else {}),
        "default_permissions": {"pub": {}, "sub": {}},
        "limits": {
            **dict.fromkeys(("data", "payload", "imports", "exports"), UNLIMITED),
            "subs": subscriptions,
            "conn": connections,
            # Nobody bridges another bus into ours.
            "leaf": 0,
            "wildcards": True,
            "mem_storage": storage,
            "disk_storage": storage,
            "streams": storage,
            "consumer": storage,
        },
    }
