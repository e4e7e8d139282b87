"""Who may do what on the bus: NATS operator, account and user tokens, minted here.

A NATS server in operator mode trusts one public key. The operator signs accounts, an
account's signing key signs users, and each user's token carries its permissions, so
that neither adding a cluster nor restarting anything needs a change of the server.

Two accounts divide the bus. `CORE` holds JetStream and the services. `AGENTS` holds
the agents and reaches of CORE only what is imported by name: pulling and settling
commands, its events and heartbeats. The division matters although every agent's own
permissions name its cluster: the server does not check the *reply* subject of a
publish, so an agent in CORE could have the acknowledgement of its event written to
`cmd.<other cluster>.<session>` and so replace that cluster's command. In an account of
its own the reply leads nowhere.

All functions are pure but for the randomness of new keys. Seeds are secret; tokens and
the server's configuration are not.
"""

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Self

import nkeys

from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.permissions import OPERATORS, SERVICES, Permissions
from streamspace_common.contracts.permissions import agent as agent_permissions
from streamspace_common.contracts.streams import COMMANDS

_GIGABYTE = 1000**3
_RESPONSE_TTL_SECONDS = 120
_UNLIMITED = -1


class KeyKind(Enum):
    """What a key pair stands for; part of its textual form."""

    OPERATOR = nkeys.PREFIX_BYTE_OPERATOR
    ACCOUNT = nkeys.PREFIX_BYTE_ACCOUNT
    USER = nkeys.PREFIX_BYTE_USER


def new_seed(kind: KeyKind) -> str:
    """A fresh private key in NATS' textual form (`SO…`, `SA…`, `SU…`)."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), kind.value)
    return seed.decode()


def public_key(seed: str) -> str:
    """The public key that belongs to `seed` (`O…`, `A…`, `U…`)."""
    key: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return key.decode()


class Issuer(Contract):
    """All it takes to mint the users of one account: its name and a signing key."""

    account: str
    signing_seed: str


class Trust(Contract):
    """The keys of one installation, made once and kept by whoever runs the server.

    Losing it means to enrol everything anew; leaking it means the same.
    """

    operator_seed: str
    system_seed: str
    core_seed: str
    core_signing_seed: str
    agents_seed: str
    agents_signing_seed: str

    @classmethod
    def new(cls) -> Self:
        return cls(
            operator_seed=new_seed(KeyKind.OPERATOR),
            system_seed=new_seed(KeyKind.ACCOUNT),
            core_seed=new_seed(KeyKind.ACCOUNT),
            core_signing_seed=new_seed(KeyKind.ACCOUNT),
            agents_seed=new_seed(KeyKind.ACCOUNT),
            agents_signing_seed=new_seed(KeyKind.ACCOUNT),
        )

    @property
    def services(self) -> Issuer:
        """Mints the control plane's own users."""
        return Issuer(account=public_key(self.core_seed), signing_seed=self.core_signing_seed)

    @property
    def agents(self) -> Issuer:
        """Mints agents, and nothing more powerful; the one key that auth needs."""
        return Issuer(account=public_key(self.agents_seed), signing_seed=self.agents_signing_seed)


def service_credentials(issuer: Issuer, service: str, *, name: str | None = None) -> str:
    """The `.creds` text of a service, with the rights `SERVICES` gives it.

    Raises:
        KeyError: there is no such service.
    """
    return mint_user(SERVICES[service], name or service, issuer)


def operator_credentials(issuer: Issuer, role: str, *, expires_at: datetime | None = None) -> str:
    """The `.creds` text of an operator's command line, with the rights `OPERATORS` gives it.

    Raises:
        KeyError: there is no such role.
    """
    return mint_user(OPERATORS[role], role, issuer, expires_at=expires_at)


def agent_credentials(
    issuer: Issuer, cluster: ClusterId, *, expires_at: datetime | None = None
) -> str:
    """The `.creds` text of a cluster's agents."""
    return mint_user(agent_permissions(cluster), f"agent-{cluster}", issuer, expires_at=expires_at)


def mint_user(
    permissions: Permissions, name: str, issuer: Issuer, *, expires_at: datetime | None = None
) -> str:
    """A new user of the issuer's account, as the text of a `.creds` file.

    The server ends the user's connections at `expires_at`; None for never.
    """
    seed = new_seed(KeyKind.USER)
    token = _sign(
        issuer.signing_seed,
        subject=public_key(seed),
        name=name,
        expires_at=expires_at,
        claims={
            "type": "user",
            "issuer_account": issuer.account,
            "pub": {"allow": list(permissions.publish)},
            "sub": {"allow": list(permissions.subscribe)},
            # Answers go to inboxes that no allow-list can name.
            "resp": {"max": permissions.responses, "ttl": _RESPONSE_TTL_SECONDS * 10**9},
            "subs": _UNLIMITED,
            "data": _UNLIMITED,
            "payload": _UNLIMITED,
        },
    )
    return _CREDENTIALS.format(token=token, seed=seed)


def mint_operator(trust: Trust) -> str:
    """The operator's token; the server trusts the key that signed it."""
    return _sign(
        trust.operator_seed,
        subject=public_key(trust.operator_seed),
        name="streamspace",
        claims={"type": "operator", "system_account": public_key(trust.system_seed)},
    )


@dataclass(frozen=True)
class Account:
    """An account's public key and token."""

    public: str
    token: str


def mint_accounts(trust: Trust) -> tuple[Account, ...]:
    """The system account, CORE and AGENTS."""
    core, agents = public_key(trust.core_seed), public_key(trust.agents_seed)
    return (
        mint_account(trust.operator_seed, public_key(trust.system_seed), "SYS"),
        mint_account(
            trust.operator_seed,
            core,
            "CORE",
            signing_key=public_key(trust.core_signing_seed),
            jetstream=True,
            exports=[_service(name, subject, kind) for name, subject, kind in _CORE_EXPORTS],
            imports=[_import(name, subject, agents) for name, subject, _ in _AGENT_EXPORTS],
        ),
        mint_account(
            trust.operator_seed,
            agents,
            "AGENTS",
            signing_key=public_key(trust.agents_signing_seed),
            exports=[_service(name, subject, kind) for name, subject, kind in _AGENT_EXPORTS],
            imports=[_import(name, subject, core) for name, subject, _ in _CORE_EXPORTS],
        ),
    )


def mint_account(
    operator_seed: str,
    public: str,
    name: str,
    *,
    signing_key: str | None = None,
    jetstream: bool = False,
    exports: list[dict[str, Any]] | None = None,
    imports: list[dict[str, Any]] | None = None,
) -> Account:
    """An account's token; `jetstream` gives it all the storage the server has."""
    storage = _UNLIMITED if jetstream else 0
    token = _sign(
        operator_seed,
        subject=public,
        name=name,
        claims={
            "type": "account",
            "signing_keys": [signing_key] if signing_key else [],
            "exports": exports or [],
            "imports": imports or [],
            "default_permissions": {"pub": {}, "sub": {}},
            "limits": {
                **dict.fromkeys(
                    ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), _UNLIMITED
                ),
                "wildcards": True,
                "mem_storage": storage,
                "disk_storage": storage,
                "streams": storage,
                "consumer": storage,
            },
        },
    )
    return Account(public, token)


def server_config(
    trust: Trust,
    *,
    port: int,
    store_dir: Path,
    host: str = "127.0.0.1",
    http_port: int | None = None,
    name: str = "streamspace",
    max_file_bytes: int = 40 * _GIGABYTE,
) -> str:
    """The nats-server configuration of a single server that trusts `trust`.

    Args:
        trust: no seed of it is in the text.
        port: where clients connect, on `host`.
        store_dir: JetStream's directory.
        host: an address of this machine.
        http_port: monitoring on loopback, which has no authentication; None for none.
        name: the server's name in monitoring.
        max_file_bytes: has to exceed the sum of the streams' `max_bytes`.
    """
    lines = [
        f"server_name: {json.dumps(name)}",
        f"listen: {json.dumps(f'{host}:{port}')}",
        *([f'http: "127.0.0.1:{http_port}"'] if http_port is not None else []),
        "max_payload: 1MB",
        'write_deadline: "10s"',
        'ping_interval: "20s"',
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
        accounts_config(trust),
    ]
    return "\n".join(lines)


def accounts_config(trust: Trust) -> str:
    """The part of a server's configuration that says whom it trusts; all of a cluster share it."""
    accounts = mint_accounts(trust)
    lines = [
        f"operator: {mint_operator(trust)}",
        f"system_account: {accounts[0].public}",
        "resolver: MEMORY",
        "resolver_preload {",
        *(f"  {account.public}: {account.token}" for account in accounts),
        "}",
        "",
    ]
    return "\n".join(lines)


def rights() -> str:
    """A digest of what tokens of this version allow; another one asks for signing them anew."""
    told = repr((sorted(SERVICES.items()), _CORE_EXPORTS, _AGENT_EXPORTS))
    return hashlib.sha256(told.encode()).hexdigest()


# A pull is answered with many messages, everything else with one.
_CORE_EXPORTS = (
    ("pull commands", f"$JS.API.CONSUMER.MSG.NEXT.{COMMANDS.name}.*", "Stream"),
    ("settle commands", f"$JS.ACK.{COMMANDS.name}.*.>", "Singleton"),
    ("settle commands, newer form", f"$JS.ACK.*.*.{COMMANDS.name}.*.>", "Singleton"),
    ("publish events", "evt.*.session.*.*", "Singleton"),
    ("heartbeats", "hb.*.*", "Singleton"),
)
_AGENT_EXPORTS = (("requests to agents", "rpc.*.*", "Singleton"),)


def _service(name: str, subject: str, response_type: str) -> dict[str, Any]:
    return {"name": name, "subject": subject, "type": "service", "response_type": response_type}


def _import(name: str, subject: str, account: str) -> dict[str, Any]:
    return {"name": name, "subject": subject, "account": account, "type": "service"}


def _sign(
    seed: str,
    *,
    subject: str,
    name: str,
    claims: Mapping[str, Any],
    expires_at: datetime | None = None,
) -> str:
    """A NATS JWT: Ed25519 over two base64url parts, with NATS' own names of keys."""
    body: dict[str, Any] = {
        "jti": secrets.token_hex(16),
        "iat": int(datetime.now(UTC).timestamp()),
        "iss": public_key(seed),
        "name": name,
        "sub": subject,
        "nats": {**claims, "version": 2},
    }
    if expires_at is not None:
        body["exp"] = int(expires_at.timestamp())
    head = _encode(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = f"{head}.{_encode(json.dumps(body).encode())}"
    signature: bytes = nkeys.from_seed(bytearray(seed.encode())).sign(signed.encode())
    return f"{signed}.{_encode(signature)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


_CREDENTIALS = """\
-----BEGIN NATS USER JWT-----
{token}
------END NATS USER JWT------

The seed below is a secret: whoever has it is this user.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""
