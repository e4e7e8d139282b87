"""Which process gets which settings: pure, so that a glance shows who knows what."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from streamspace_embedded.ingress import Certificate, Ingress
from streamspace_embedded.layout import Layout
from streamspace_embedded.trust import Secrets

CLUSTER = "local"
AGENT = f"agent-{CLUSTER}"


@dataclass(frozen=True)
class Addresses:
    """Where things listen on this machine."""

    host: str
    port: int
    stream_port: int
    nats_port: int
    postgres_port: int
    health_ports: Mapping[str, int]
    ingress: "AgentsWay | None" = None


@dataclass(frozen=True)
class AgentsWay:
    """How agents of other machines come in."""

    ingress: Ingress
    certificate: Certificate
    websocket_port: int
    """NATS' own, on loopback, where the ingress leads."""


@dataclass(frozen=True)
class Process:
    """One process: its installed command, and the settings nobody else is given."""

    name: str
    command: str
    environment: dict[str, str]


SERVICES_IN_ORDER = ("session", "auth", "catalog-sync", "gateway", "vnc-proxy")
"""Session first: it makes the streams that the others publish to."""
NAMES = (*SERVICES_IN_ORDER, AGENT)
INGRESS = "agent-ingress"

_ONLY_FOR_AUTH = ("STREAMSPACE_ADMIN_PASSWORD", "STREAMSPACE_AUTH_ADMIN_PASSWORD")


def processes(
    layout: Layout,
    secrets: Secrets,
    addresses: Addresses,
    *,
    web_root: Path | None,
    outer: Mapping[str, str],
) -> list[Process]:
    """Every process with its environment.

    `outer` is the launcher's own environment: a `STREAMSPACE_...` variable in it reaches
    the services, so that any setting can be changed for a `make up`.
    """
    own = {
        "session": {"DATABASE_URL": database_url(secrets, addresses.postgres_port, "session")},
        "auth": {
            "DATABASE_URL": database_url(secrets, addresses.postgres_port, "auth"),
            "ENCRYPTION_KEY": secrets.auth_key,
            "ADMIN_PASSWORD_FILE": str(layout.admin_password),
            "BUS_AUTHORITY_FILE": str(layout.bus_authority),
            "BUS_ACCOUNTS_CREDENTIALS": str(layout.bus_accounts),
            **_enrolments(addresses),
            "FIRST_CLUSTER": CLUSTER,
            "FIRST_CLUSTER_FILE": str(layout.enrolment),
        },
        "catalog-sync": {
            "DATABASE_URL": database_url(secrets, addresses.postgres_port, "catalog"),
            "TOKEN_KEY": secrets.catalog_key,
            "DATA_DIR": str(layout.catalogs),
        },
        "gateway": {
            "LISTEN_HOST": addresses.host,
            "LISTEN_PORT": str(addresses.port),
            "STREAM_PORT": str(addresses.stream_port),
            **({"WEB_ROOT": str(web_root)} if web_root else {}),
        },
        "vnc-proxy": {
            "LISTEN_HOST": addresses.host,
            "LISTEN_PORT": str(addresses.stream_port),
            **_tunnels(addresses),
            # Kept, so that a restart does not send people back to the start page.
            "COOKIE_KEY": secrets.cookie_key,
        },
    }
    found = [
        Process(
            name,
            f"streamspace-{name}",
            _environment(
                name,
                {**own[name], "NATS_CREDENTIALS": str(layout.credentials(name))},
                addresses,
                outer,
            ),
        )
        for name in SERVICES_IN_ORDER
    ]
    agent = {
        "ENROLMENT_FILE": str(layout.enrolment),
        "STATE_DIR": str(layout.agent),
        # Ctrl-C ends everything; the next start brings the sessions back.
        "ON_EXIT": "stop",
    }
    found.append(
        Process(AGENT, "streamspace-agent", _environment(AGENT, agent, addresses, outer, "AGENT"))
    )
    if addresses.ingress is not None:
        door = _of_ingress(addresses.ingress, addresses)
        found.append(
            Process(
                INGRESS, f"streamspace-{INGRESS}", _environment(INGRESS, door, addresses, outer)
            )
        )
    return found


def _of_ingress(way: AgentsWay, addresses: Addresses) -> dict[str, str]:
    return {
        "LISTEN_HOST": way.ingress.listen,
        "LISTEN_PORT": str(way.ingress.port),
        "CERTIFICATE_FILE": str(way.certificate.certificate),
        "KEY_FILE": str(way.certificate.key),
        "BUS_ADDRESS": f"127.0.0.1:{way.websocket_port}",
        "RELAY_ADDRESS": f"127.0.0.1:{addresses.stream_port}",
    }


def _enrolments(addresses: Addresses) -> dict[str, str]:
    """What auth tells agents: where to go from here, and from elsewhere."""
    here = f"ws://127.0.0.1:{addresses.stream_port}"
    way = addresses.ingress
    if way is None:
        return {"ENROLMENT_TUNNEL_URL": here}
    trusted = way.certificate.authority
    return {
        "ENROLMENT_NATS_URLS": way.ingress.nats_url,
        "ENROLMENT_TUNNEL_URL": way.ingress.tunnel_url,
        **({"ENROLMENT_CA_FILE": str(trusted)} if trusted else {}),
        "FIRST_CLUSTER_NATS_URLS": f"nats://127.0.0.1:{addresses.nats_port}",
        "FIRST_CLUSTER_TUNNEL_URL": here,
    }


def _tunnels(addresses: Addresses) -> dict[str, str]:
    """What the relay has agents dial: the same as `_enrolments` tells them."""
    here = f"ws://127.0.0.1:{addresses.stream_port}"
    if addresses.ingress is None:
        return {"TUNNEL_URL": here}
    return {
        "TUNNEL_URL": addresses.ingress.ingress.tunnel_url,
        "CLUSTER_TUNNEL_URLS": json.dumps({CLUSTER: here}),
    }


def _environment(
    name: str,
    own: Mapping[str, str],
    addresses: Addresses,
    outer: Mapping[str, str],
    prefix: str | None = None,
) -> dict[str, str]:
    prefix = f"STREAMSPACE_{prefix or name.upper().replace('-', '_')}_"
    shared = {
        variable: value
        for variable, value in outer.items()
        if name == "auth" or variable not in _ONLY_FOR_AUTH
    }
    shared["STREAMSPACE_NATS_URL"] = f"nats://127.0.0.1:{addresses.nats_port}"
    shared[f"{prefix}HEALTH_PORT"] = str(addresses.health_ports[name])
    for setting, value in own.items():
        shared[f"{prefix}{setting}"] = value
    return shared


def database_url(secrets: Secrets, port: int, name: str) -> str:
    """Where one service's database is; holds its password."""
    return f"postgresql://{name}:{secrets.database_passwords[name]}@127.0.0.1:{port}/{name}"
