"""The secrets of one installation: made once, kept in files that only their owner reads."""

import base64
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from streamspace_common.bus import credentials
from streamspace_common.contracts.permissions import OPERATORS, SERVICES
from streamspace_common.runtime.private_files import write_private
from streamspace_embedded.layout import Layout

DATABASES = ("auth", "session", "catalog")


@dataclass(frozen=True)
class Secrets:
    """What the launcher hands to the processes that need it."""

    trust: credentials.Trust
    database_passwords: dict[str, str]
    auth_key: str
    catalog_key: str
    cookie_key: str


def load(layout: Layout) -> Secrets:
    """Read the installation's secrets, or make them."""
    path = layout.secrets / "installation.json"
    if not path.exists():
        write_private(path, json.dumps(_new(), indent=2) + "\n")
    kept = json.loads(path.read_text())
    # Made by a version without sessions that have an address of their own, or with one
    # account for all clusters: what is there stays, what is missing is made.
    whole = {
        **kept,
        "cookieKey": kept.get("cookieKey") or _key(),
        "trust": kept["trust"] | _trust(kept["trust"]),
    }
    if whole != kept:
        kept = whole
        write_private(path, json.dumps(kept, indent=2) + "\n")
    return Secrets(
        trust=credentials.Trust.model_validate(kept["trust"]),
        database_passwords=kept["databasePasswords"],
        auth_key=kept["authKey"],
        catalog_key=kept["catalogKey"],
        cookie_key=kept["cookieKey"],
    )


def renew(layout: Layout, *, passwords: bool = False, cookie_key: bool = False) -> None:
    """Make secrets of these kinds anew, in an installation that has some."""
    if not passwords and not cookie_key:
        return
    path = layout.secrets / "installation.json"
    kept = json.loads(path.read_text())
    if passwords:
        kept["databasePasswords"] = _passwords()
    if cookie_key:
        kept["cookieKey"] = _key()
    write_private(path, json.dumps(kept, indent=2) + "\n")


def _new() -> dict[str, object]:
    return {
        "trust": _trust({}),
        "databasePasswords": _passwords(),
        "authKey": _key(),
        "catalogKey": _key(),
        "cookieKey": _key(),
    }


def _trust(known: dict[str, str]) -> dict[str, str]:
    return credentials.Trust.completed(known).model_dump(by_alias=True)


def _passwords() -> dict[str, str]:
    return {name: secrets.token_urlsafe(24) for name in DATABASES}


def _key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def write_credentials(
    layout: Layout,
    known: Secrets,
    *,
    nats_port: int,
    monitoring_port: int | None = None,
    websocket_port: int | None = None,
) -> Path:
    """Write what the NATS server and the services read; gives the server's configuration.

    Users are signed afresh at each start: their rights are those of this version.
    """
    for service in SERVICES:
        text = credentials.service_credentials(known.trust.services, service)
        write_private(layout.credentials(service), text)
    write_operators(layout, known)
    write_private(layout.bus_authority, known.trust.authority.to_json().decode() + "\n")
    write_private(layout.bus_accounts, credentials.account_credentials(known.trust))
    # Of a version that had one account for all clusters.
    (layout.secrets / "agents.seed").unlink(missing_ok=True)
    config = layout.nats / "nats.conf"
    write_private(
        config,
        credentials.server_config(
            known.trust,
            port=nats_port,
            store_dir=layout.nats / "store",
            http_port=monitoring_port,
            websocket_port=websocket_port,
        ),
    )
    return config


def write_operators(layout: Layout, known: Secrets) -> None:
    """Write the credentials that people's command lines look at streams with."""
    for role in OPERATORS:
        text = credentials.operator_credentials(known.trust.services, role)
        write_private(layout.credentials(role), text)
