"""The secrets of an installation in containers, each in a folder of its holder's own.

`secrets` makes them, once, and writes for each container only what that one may know:
`<into>/<holder>/<file>`, where every holder is a volume that nobody else mounts. Run
again it changes no secret; it signs the services' bus credentials anew, so that their
rights are those of this version. `databases` creates a role and a database for each
service that owns one. Both are one-shot containers of `docker-compose.yml`.

`kubernetes` prints the same as Secrets for `kubectl apply -f -`, with certificates for
NATS; what they are made from stays in the folder `--installation`.

Usage: python -m streamspace_embedded.containers secrets|databases|kubernetes [--help]
"""

import argparse
import asyncio
import json
import os
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import asyncpg

from streamspace_common.bus import credentials
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.runtime.private_files import write_private
from streamspace_embedded import authority, databases, ingress, trust
from streamspace_embedded.layout import Layout
from streamspace_embedded.trust import Secrets

SUPERUSER = "streamspace"
"""Of the PostgreSQL container; `databases` is the only one that signs in as it."""
NATS_PORT = 4222
NATS_MONITORING_PORT = 8222
NATS_WEBSOCKET_PORT = 9222
INGRESS = "agent-ingress"
NATS_STORE = Path("/data/nats/store")
"""JetStream's folder, by the path under which its container mounts it."""
ADMIN_URL = "STREAMSPACE_ADMIN_URL"
"""Variable with a PostgreSQL administrator's URL; an argument would show in the process list."""
RENEWABLE = ("certificates", "credentials", "database-passwords", "cookie-key")
"""What can be made anew without losing anything: all but the keys that seal stored data, and
the trust that enrolled agents stand on."""
_PAUSE = 1.0
_DATABASE_OF = {"auth": "auth", "session": "session", "catalog-sync": "catalog"}

Files = dict[str, dict[str, str]]


def files(
    known: Secrets, *, postgres_password: str, postgres: str, websockets: bool = False
) -> Files:
    """Holder -> file name -> content: who knows what, at a glance.

    A service reads a file named like a setting as that setting (`STREAMSPACE_SECRETS_DIR`).
    `postgres` is the server's host and port; with `websockets` NATS has a listener for the
    agents' ingress.
    """
    found: Files = {
        service: {"nats.creds": credentials.service_credentials(known.trust.services, service)}
        for service in SERVICES
    }
    for service, database in _DATABASE_OF.items():
        password = known.database_passwords[database]
        found[service]["database_url"] = f"postgresql://{database}:{password}@{postgres}/{database}"
    found["auth"] |= {
        "encryption_key": known.auth_key,
        "bus-authority.json": known.trust.authority.to_json().decode(),
        "bus-accounts.creds": credentials.account_credentials(known.trust),
    }
    found["catalog-sync"]["token_key"] = known.catalog_key
    found["vnc-proxy"]["cookie_key"] = known.cookie_key
    found["nats"] = {
        "nats.conf": credentials.server_config(
            known.trust,
            port=NATS_PORT,
            host="0.0.0.0",
            http_port=NATS_MONITORING_PORT,
            store_dir=NATS_STORE,
            websocket_port=NATS_WEBSOCKET_PORT if websockets else None,
        )
    }
    found["postgres"] = {"password": postgres_password}
    return found


def write_secrets(
    installation: Path, into: Path, *, postgres: str, agents_host: str | None = None
) -> None:
    """Make what is missing, and give every holder its files.

    `agents_host` is the name or address by which agents of other machines reach this one;
    None lets none in.
    """
    layout = Layout(installation)
    layout.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = superuser_password(layout)
    known = trust.load(layout)
    # For people, so they lie beside what they are made from, and in no container's folder.
    trust.write_operators(layout, known)
    found = files(
        known, postgres_password=password, postgres=postgres, websockets=agents_host is not None
    )
    if agents_host is not None:
        _add_certificate(found, layout, agents_host)
    for holder, contents in found.items():
        folder = into / holder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in contents.items():
            write_private(folder / name, content.rstrip("\n") + "\n")


def _add_certificate(found: Files, layout: Layout, agents_host: str) -> None:
    """Give the ingress its certificate, and auth what enrolments tell agents to trust."""
    vouching, server = authority.server_certificate(
        layout, INGRESS, [agents_host], datetime.now(UTC)
    )
    found[INGRESS] = {"tls.crt": server.certificate, "tls.key": server.key}
    found["auth"]["ca.crt"] = vouching.certificate


def superuser_password(layout: Layout) -> str:
    """PostgreSQL's own administrator's, made at the first call."""
    path = layout.secrets / "postgres-password"
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24) + "\n")
    return path.read_text().strip()


def create_databases(
    installation: Path,
    *,
    postgres: str,
    passwords: Path | None = None,
    admin_url: str | None = None,
    patience: float = 0.0,
) -> None:
    """Roles and databases for the services, with the passwords that `secrets` made.

    Args:
        installation: the folder with all secrets.
        postgres: host and port of the server.
        passwords: a folder with only the passwords, one file for each role, in its place.
        admin_url: whom to connect as, where it is not our own container's administrator.
        patience: seconds to wait for the server.
    """
    if passwords is not None:
        known = {name: (passwords / name).read_text().strip() for name in trust.DATABASES}
        superuser = (passwords / SUPERUSER).read_text().strip()
    else:
        layout = Layout(installation)
        known, superuser = trust.load(layout).database_passwords, superuser_password(layout)
    url = admin_url or f"postgresql://{SUPERUSER}:{quote(superuser, safe='')}@{postgres}/postgres"
    deadline = time.monotonic() + patience
    while True:
        try:
            asyncio.run(databases.prepare(url, known))
        except (OSError, asyncpg.CannotConnectNowError):
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return


def main() -> None:
    arguments = _parser().parse_args()
    try:
        match arguments.command:
            case "secrets":
                write_secrets(
                    arguments.installation,
                    arguments.into,
                    postgres=arguments.postgres,
                    agents_host=arguments.agents_host,
                )
            case "databases":
                create_databases(
                    arguments.installation,
                    postgres=arguments.postgres,
                    passwords=arguments.passwords,
                    admin_url=os.environ.get(ADMIN_URL),
                    patience=arguments.wait,
                )
            case "kubernetes":
                _print_manifests(arguments)
    except (OSError, asyncpg.PostgresError) as error:
        sys.exit(f"{arguments.command}: {error}")


def _print_manifests(arguments: argparse.Namespace) -> None:
    # It needs this module, and only this command needs it.
    from streamspace_embedded import kubernetes

    if sys.stdout.isatty():
        sys.exit("kubernetes: what follows are secrets; pipe them into `kubectl apply -f -`.")
    outside: str | None = arguments.external_postgres
    authorities: Path | None = arguments.postgres_ca
    found = kubernetes.manifests(
        arguments.installation,
        namespace=arguments.namespace,
        postgres=kubernetes.Postgres(
            outside or f"postgres.{arguments.namespace}.svc:5432",
            outside=outside is not None,
            authorities=authorities.read_text() if authorities else None,
        ),
        names=kubernetes.nats_names(arguments.namespace, arguments.nats_name),
        now=datetime.now(UTC),
        renew=arguments.renew,
    )
    print(json.dumps(found, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m streamspace_embedded.containers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--installation",
        type=Path,
        default=Path("/installation"),
        help="folder with all secrets; for these commands alone (%(default)s)",
    )
    composed = argparse.ArgumentParser(add_help=False)
    composed.add_argument("--postgres", default="postgres:5432", help="host:port (%(default)s)")
    composed.add_argument(
        "--into", type=Path, default=Path("/secrets"), help="the holders' folders (%(default)s)"
    )
    writing = commands.add_parser("secrets", parents=[shared, composed], help="files, for compose")
    writing.add_argument(
        "--agents-host",
        type=ingress.checked_host,
        metavar="HOST",
        help="name or address by which agents of other machines reach this one",
    )
    making = commands.add_parser("databases", parents=[shared, composed], help="roles, databases")
    making.add_argument(
        "--passwords",
        type=Path,
        help="folder with the passwords alone, a file for each role, instead of --installation",
    )
    making.add_argument(
        "--wait", type=float, default=60.0, help="seconds for the server to come (%(default)s)"
    )
    making.epilog = f"{ADMIN_URL} says whom to connect as, where it is not our own administrator."
    _kubernetes_arguments(commands.add_parser("kubernetes", parents=[shared], help="Secrets"))
    return parser


def _kubernetes_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--namespace", default="streamspace", help="(%(default)s)")
    parser.add_argument(
        "--nats-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a name more by which agents of other clusters reach NATS; once for each",
    )
    parser.add_argument(
        "--external-postgres", metavar="HOST:PORT", help="not the one of deploy/k8s/postgres"
    )
    parser.add_argument(
        "--postgres-ca",
        type=Path,
        metavar="FILE",
        help="certificates (PEM) that vouch for it, where every system's do not",
    )
    parser.add_argument(
        "--renew",
        action="append",
        default=[],
        choices=RENEWABLE,
        help="make these anew; docs/how-to/install-on-kubernetes.md says what has to follow",
    )


if __name__ == "__main__":
    main()
