"""The secrets of an installation in containers, each in a folder of its holder's own.

`secrets` makes them, once, and writes for each container only what that one may know:
`<into>/<holder>/<file>`, where every holder is a volume that nobody else mounts. Run
again it changes no secret; it signs the services' bus credentials anew, so that their
rights are those of this version. `databases` creates a role and a database for each
service that owns one. Both are one-shot containers of `docker-compose.yml`.

Usage: python -m streamspace_embedded.containers secrets|databases [--help]
"""

import argparse
import asyncio
import secrets
import sys
from pathlib import Path
from urllib.parse import quote

import asyncpg

from streamspace_common.bus import credentials
from streamspace_common.contracts.permissions import SERVICES
from streamspace_embedded import databases, trust
from streamspace_embedded.layout import Layout
from streamspace_embedded.trust import Secrets

SUPERUSER = "streamspace"
"""Of the PostgreSQL container; `databases` is the only one that signs in as it."""
NATS_PORT = 4222
NATS_MONITORING_PORT = 8222
NATS_STORE = Path("/data/nats/store")
"""JetStream's folder, by the path under which its container mounts it."""
_DATABASE_OF = {"auth": "auth", "session": "session", "catalog-sync": "catalog"}

Files = dict[str, dict[str, str]]


def files(known: Secrets, *, postgres_password: str, postgres: str) -> Files:
    """Holder -> file name -> content: who knows what, at a glance.

    A service reads a file named like a setting as that setting (`STREAMSPACE_SECRETS_DIR`).
    `postgres` is the server's host and port.
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
        "agents.seed": known.trust.agents.signing_seed,
        "account_public_key": known.trust.agents.account,
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
        )
    }
    found["postgres"] = {"password": postgres_password}
    return found


def write_secrets(installation: Path, into: Path, *, postgres: str) -> None:
    """Make what is missing, and give every holder its files."""
    layout = Layout(installation)
    layout.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = _postgres_password(layout)
    if not password.exists():
        trust.write_private(password, secrets.token_urlsafe(24) + "\n")
    found = files(
        trust.load(layout), postgres_password=password.read_text().strip(), postgres=postgres
    )
    for holder, contents in found.items():
        folder = into / holder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in contents.items():
            trust.write_private(folder / name, content.rstrip("\n") + "\n")


def create_databases(installation: Path, *, postgres: str) -> None:
    """Roles and databases for the services, with the passwords that `secrets` made."""
    layout = Layout(installation)
    password = quote(_postgres_password(layout).read_text().strip(), safe="")
    known = trust.load(layout)
    asyncio.run(
        databases.prepare(
            f"postgresql://{SUPERUSER}:{password}@{postgres}/postgres", known.database_passwords
        )
    )


def _postgres_password(layout: Layout) -> Path:
    return layout.secrets / "postgres-password"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m streamspace_embedded.containers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["secrets", "databases"])
    parser.add_argument(
        "--installation",
        type=Path,
        default=Path("/installation"),
        help="folder with all secrets; for these two commands alone (%(default)s)",
    )
    parser.add_argument(
        "--into", type=Path, default=Path("/secrets"), help="the holders' folders (%(default)s)"
    )
    parser.add_argument("--postgres", default="postgres:5432", help="host:port (%(default)s)")
    arguments = parser.parse_args()
    try:
        if arguments.command == "secrets":
            write_secrets(arguments.installation, arguments.into, postgres=arguments.postgres)
        else:
            create_databases(arguments.installation, postgres=arguments.postgres)
    except (OSError, asyncpg.PostgresError) as error:
        sys.exit(f"{arguments.command}: {error}")


if __name__ == "__main__":
    main()
