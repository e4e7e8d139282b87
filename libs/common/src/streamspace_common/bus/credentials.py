"""An installation's trust: its keys, the credentials of its services, its servers' configuration.

A NATS server in operator mode trusts one public key. The operator signs accounts, an
account's signing key signs users, and permissions are part of what is signed, so that
neither adding a cluster nor restarting anything needs a change of a server's configuration:
it names the operator, and a folder where accounts' tokens are kept. `SYS` and `CORE` are
there from the start; auth brings each cluster's account, and `CORE` anew with it
(`accounts` says what each of them may).

All functions are pure but for the randomness of new keys. Seeds are secret; tokens and
the servers' configuration are not.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from streamspace_common.bus import accounts
from streamspace_common.bus.accounts import Account, Authority, permission_claims
from streamspace_common.bus.signing import KeyKind, new_seed, now, public_key, sign
from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.permissions import (
    ACCOUNTS,
    CORE_EXPORTS,
    OPERATORS,
    SERVICES,
    Permissions,
)

_GIGABYTE = 1000**3


class Issuer(Contract):
    """All it takes to mint the users of one account: its name and a signing key."""

    account: str
    signing_seed: str


class Trust(Contract):
    """The keys of one installation, made once and kept by whoever runs the server.

    Losing it means to enrol everything anew; leaking it means the same.
    """

    operator_seed: str
    operator_signing_seed: str
    system_seed: str
    core_seed: str
    core_signing_seed: str
    activation_seed: str

    @classmethod
    def new(cls) -> Self:
        return cls.completed({})

    @classmethod
    def completed(cls, known: Mapping[str, str]) -> Self:
        """The keys that are known, by their names in JSON, and fresh ones for the rest."""
        return cls.model_validate(
            {name: new_seed(kind) for name, kind in _KEYS.items()}
            | {name: seed for name, seed in known.items() if name in _KEYS}
        )

    @property
    def services(self) -> Issuer:
        """Mints the control plane's own users."""
        return Issuer(account=public_key(self.core_seed), signing_seed=self.core_signing_seed)

    @property
    def system(self) -> Issuer:
        """Mints users of the servers' own account."""
        return Issuer(account=public_key(self.system_seed), signing_seed=self.system_seed)

    @property
    def authority(self) -> Authority:
        """What auth lets clusters in with."""
        return Authority(
            operator_signing_seed=self.operator_signing_seed,
            activation_seed=self.activation_seed,
            core_account=public_key(self.core_seed),
            core_signing_key=public_key(self.core_signing_seed),
        )


_KEYS = {
    "operatorSeed": KeyKind.OPERATOR,
    "operatorSigningSeed": KeyKind.OPERATOR,
    "systemSeed": KeyKind.ACCOUNT,
    "coreSeed": KeyKind.ACCOUNT,
    "coreSigningSeed": KeyKind.ACCOUNT,
    "activationSeed": KeyKind.ACCOUNT,
}


def service_credentials(issuer: Issuer, service: str, *, name: str | None = None) -> str:
    """The `.creds` text of a service, with the rights `SERVICES` gives it.

    Raises:
        KeyError: there is no such service.
    """
    return mint_user(SERVICES[service], name or service, issuer)


def account_credentials(trust: Trust) -> str:
    """The `.creds` text with which auth gives servers accounts' tokens."""
    return mint_user(ACCOUNTS, "auth-accounts", trust.system)


def operator_credentials(issuer: Issuer, role: str, *, expires_at: datetime | None = None) -> str:
    """The `.creds` text of an operator's command line, with the rights `OPERATORS` gives it.

    Raises:
        KeyError: there is no such role.
    """
    return mint_user(OPERATORS[role], role, issuer, expires_at=expires_at)


def mint_user(
    permissions: Permissions, name: str, issuer: Issuer, *, expires_at: datetime | None = None
) -> str:
    """A new user of the issuer's account, as the text of a `.creds` file.

    The server ends the user's connections at `expires_at`; None for never.
    """
    seed = new_seed(KeyKind.USER)
    token = sign(
        issuer.signing_seed,
        subject=public_key(seed),
        name=name,
        issued_at=now(),
        expires_at=expires_at,
        claims={
            "type": "user",
            **_issuer_account(issuer),
            **permission_claims(permissions),
        },
    )
    return creds(token, seed)


def mint_scoped_user(
    issuer: Issuer,
    user: str,
    name: str,
    *,
    issued_at: datetime,
    expires_at: datetime | None = None,
) -> str:
    """The token of a user whose rights stand in the scope of the key that signs it.

    Args:
        issuer: the account, and the seed of a scoped signing key of it.
        user: the public key of whoever it is for.
        name: for the servers' monitoring.
        issued_at: a revocation of the account's users ends those issued before it.
        expires_at: the server ends the user's connections then; None for never.
    """
    return sign(
        issuer.signing_seed,
        subject=user,
        name=name,
        issued_at=issued_at,
        expires_at=expires_at,
        claims={"type": "user", "issuer_account": issuer.account},
    )


def creds(token: str, seed: str) -> str:
    """A user's token and its seed as the text of a `.creds` file."""
    return _CREDENTIALS.format(token=token, seed=seed)


@dataclass(frozen=True)
class User:
    """A user of the bus as its `.creds` file tells it."""

    token: str
    seed: str


def read_creds(text: str) -> User:
    """A `.creds` file's user.

    Raises:
        ValueError: it is none; the text does not quote it.
    """
    lines = [line.strip() for line in text.splitlines()]
    tokens = [line for line in lines if line.startswith("ey") and line.count(".") == 2]
    seeds = [line for line in lines if line.startswith("SU")]
    if len(tokens) != 1 or len(seeds) != 1:
        raise ValueError("it is not a NATS .creds document")
    return User(tokens[0], seeds[0])


def _issuer_account(issuer: Issuer) -> dict[str, str]:
    """Whose user it is, where the signer is not the account itself."""
    same = public_key(issuer.signing_seed) == issuer.account
    return {} if same else {"issuer_account": issuer.account}


def mint_operator(trust: Trust) -> str:
    """The operator's token; the server trusts the keys that it names."""
    return sign(
        trust.operator_seed,
        subject=public_key(trust.operator_seed),
        name="streamspace",
        issued_at=accounts.PRELOADED_AT,
        claims={
            "type": "operator",
            "signing_keys": [public_key(trust.operator_signing_seed)],
            "system_account": public_key(trust.system_seed),
        },
    )


def mint_accounts(trust: Trust) -> tuple[Account, Account]:
    """The system account, and CORE."""
    authority = trust.authority
    core = accounts.core_claims(authority.core_signing_key, public_key(authority.activation_seed))
    return (
        _preloaded(trust, public_key(trust.system_seed), "SYS", accounts.system_claims()),
        _preloaded(trust, authority.core_account, "CORE", core),
    )


def _preloaded(trust: Trust, public: str, name: str, claims: accounts.Claims) -> Account:
    return accounts.sign_account(trust.operator_seed, public, name, claims, accounts.PRELOADED_AT)


def accounts_config(trust: Trust) -> str:
    """The part of a server's configuration that says whom it trusts; all of a cluster share it.

    It stands beside a `resolver` of type `full`, which says where accounts' tokens are kept.
    """
    system, core = mint_accounts(trust)
    lines = [
        f"operator: {mint_operator(trust)}",
        f"system_account: {system.public}",
        "resolver_preload {",
        *(f"  {account.public}: {account.token}" for account in (system, core)),
        "}",
        "",
    ]
    return "\n".join(lines)


def _resolver(directory: Path) -> list[str]:
    return [
        "resolver {",
        "  type: full",
        f"  dir: {json.dumps(str(directory))}",
        # Accounts are never deleted: one that nobody may use any more says so itself.
        "  allow_delete: false",
        "}",
    ]


def _websockets(host: str, port: int) -> list[str]:
    return [
        "websocket {",
        f"  listen: {json.dumps(f'{host}:{port}')}",
        "  no_tls: true",
        "}",
    ]


def server_config(
    trust: Trust,
    *,
    port: int,
    store_dir: Path,
    host: str = "127.0.0.1",
    http_port: int | None = None,
    websocket_port: int | None = None,
    name: str = "streamspace",
    max_file_bytes: int = 40 * _GIGABYTE,
) -> str:
    """The nats-server configuration of a single server that trusts `trust`.

    Args:
        trust: no seed of it is in the text.
        port: where clients connect, on `host`.
        store_dir: JetStream's directory; accounts' tokens are kept in it too. No two servers
            share one.
        host: an address of this machine.
        http_port: monitoring on loopback, which has no authentication; None for none.
        websocket_port: where clients come through WebSockets, on `host`, for the agents'
            ingress, which ends their TLS; None for nowhere.
        name: the server's name in monitoring.
        max_file_bytes: has to exceed the sum of the streams' `max_bytes`.
    """
    lines = [
        f"server_name: {json.dumps(name)}",
        f"listen: {json.dumps(f'{host}:{port}')}",
        *([f'http: "127.0.0.1:{http_port}"'] if http_port is not None else []),
        "max_payload: 1MB",
        'write_deadline: "10s"',
        'ping_interval: "5s"',
        "ping_max: 2",
        'lame_duck_grace_period: "2s"',
        'lame_duck_duration: "30s"',
        "max_connections: 10000",
        "jetstream {",
        f"  store_dir: {json.dumps(str(store_dir))}",
        "  max_mem: 256MB",
        f"  max_file: {max_file_bytes}",
        # A single server: what is acknowledged survives a power cut.
        "  sync_interval: always",
        "  limits { default_max_consumers: 5000 }",
        "}",
        *(_websockets(host, websocket_port) if websocket_port is not None else []),
        *_resolver(store_dir / "accounts"),
        accounts_config(trust),
    ]
    return "\n".join(lines)


def rights() -> str:
    """A digest of what tokens of this version allow; another one asks for signing them anew."""
    told = repr((sorted(SERVICES.items()), ACCOUNTS, CORE_EXPORTS, "full"))
    return hashlib.sha256(told.encode()).hexdigest()


_CREDENTIALS = """\
-----BEGIN NATS USER JWT-----
{token}
------END NATS USER JWT------

The seed below is a secret: whoever has it is this user.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""
