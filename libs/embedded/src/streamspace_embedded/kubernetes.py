"""The secrets of an installation as Secrets for Kubernetes: one for each holder.

`manifests` are JSON for `kubectl apply -f -`; nothing of them is ever written to a file.
What they are made from lies in the installation's folder, made once: running it again
gives the same Secrets, byte for byte, until something is due (a certificate near its
end, rights that a new version changed) or is asked to be renewed.
"""

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from streamspace_common.bus import credentials
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.runtime.private_files import write_private
from streamspace_embedded import authority, containers, trust
from streamspace_embedded.certificates import Pair
from streamspace_embedded.layout import Layout
from streamspace_embedded.trust import Secrets

NAMESPACE = "streamspace"
POSTGRES_CA = "postgres-ca.crt"
_MOUNT = "/secrets"
_NATS_CERTIFICATE = "nats-server"


@dataclass(frozen=True)
class Postgres:
    """Where PostgreSQL is. `outside`: another one than ours of `deploy/k8s/postgres`."""

    address: str
    outside: bool = False
    authorities: str | None = None
    """Certificates (PEM) that vouch for it; None for those that every system knows."""

    @property
    def options(self) -> str:
        """Ours is reached within the cluster only, and speaks no TLS."""
        if not self.outside:
            return ""
        roots = f"{_MOUNT}/{POSTGRES_CA}" if self.authorities else "system"
        return f"?sslmode=verify-full&sslrootcert={roots}"


def nats_names(namespace: str, more: Sequence[str] = ()) -> list[str]:
    """What NATS is called: its Service, each server, itself, and the names agents elsewhere use."""
    services = [f"nats.{namespace}.svc", f"*.nats-servers.{namespace}.svc"]
    inside = [name + suffix for name in services for suffix in ("", ".cluster.local")]
    return [*inside, "nats", f"nats.{namespace}", "localhost", *more]


def manifests(
    installation: Path,
    *,
    namespace: str,
    postgres: Postgres,
    names: Sequence[str],
    now: datetime,
    renew: Collection[str] = (),
) -> dict[str, Any]:
    """All Secrets, as one Kubernetes List; makes in `installation` what is missing or due."""
    layout = Layout(installation)
    layout.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    trust.load(layout)
    trust.renew(layout, passwords="database-passwords" in renew, cookie_key="cookie-key" in renew)
    known = trust.load(layout)
    trust.write_operators(layout, known)
    vouching, server = authority.server_certificate(
        layout, _NATS_CERTIFICATE, names, now, renew="certificates" in renew
    )
    signed = _signed(layout, known, renew="credentials" in renew)
    superuser = containers.superuser_password(layout)
    # For people, who have the folder: in no Secret.
    trust.write_operators(layout, known)
    found = holders(known, superuser, postgres, vouching.certificate, server, signed)
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [_secret(holder, namespace, files) for holder, files in found.items()],
    }


def holders(
    known: Secrets,
    superuser: str,
    postgres: Postgres,
    vouching: str,
    server: Pair,
    signed: Mapping[str, str],
) -> containers.Files:
    """Holder -> file name -> content: who knows what, at a glance."""
    every = containers.files(known, postgres_password=superuser, postgres=postgres.address)
    found = {service: every[service] for service in SERVICES}
    for service, files in found.items():
        files["nats.creds"] = signed[service]
        if service == "auth":
            files["bus-accounts.creds"] = signed[_BUS_ACCOUNTS]
        files["ca.crt"] = vouching
        if "database_url" in files:
            files["database_url"] += postgres.options
            if postgres.authorities:
                files[POSTGRES_CA] = postgres.authorities
    found["nats"] = {
        "accounts.conf": signed[_ACCOUNTS],
        "tls.crt": server.certificate,
        "tls.key": server.key,
        "ca.crt": vouching,
    }
    if not postgres.outside:
        found["postgres"] = {"password": superuser}
        found["databases"] = {containers.SUPERUSER: superuser, **known.database_passwords}
    return found


def _secret(holder: str, namespace: str, files: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": f"{holder}-secrets",
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/name": holder,
                "app.kubernetes.io/part-of": "streamspace",
            },
        },
        "data": {
            name: base64.b64encode((text.rstrip("\n") + "\n").encode()).decode()
            for name, text in files.items()
        },
    }


_ACCOUNTS, _BUS_ACCOUNTS = " accounts", " bus accounts"
"""Beside the services' names in what is signed; no service can be called so."""


def _signed(layout: Layout, known: Secrets, *, renew: bool) -> dict[str, str]:
    """Credentials and accounts, signed when the rights of this version are others than before."""
    path = layout.secrets / "signed.json"
    rights = credentials.rights()
    if path.exists() and not renew:
        kept = json.loads(path.read_text())
        if kept["rights"] == rights:
            return dict(kept["texts"])
    texts = {
        service: credentials.service_credentials(known.trust.services, service)
        for service in SERVICES
    }
    texts[_ACCOUNTS] = credentials.accounts_config(known.trust)
    texts[_BUS_ACCOUNTS] = credentials.account_credentials(known.trust)
    write_private(path, json.dumps({"rights": rights, "texts": texts}, indent=2) + "\n")
    return texts
