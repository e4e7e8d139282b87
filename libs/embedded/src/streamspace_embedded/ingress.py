"""Letting agents of other machines in: by which name, at which port, with whose certificate.

By default nobody is: everything listens on loopback. Told a name by which other machines
know this one, `up` also runs the agents' ingress, and enrolments lead to it.
"""

import argparse
import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from streamspace_embedded import authority
from streamspace_embedded.children import StartError
from streamspace_embedded.layout import Layout

PORT = 8443
_CERTIFICATE = "agent-ingress"
_NAME = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*$")


@dataclass(frozen=True)
class Certificate:
    """An operator's own; `authority` vouches for it, if not one that every system trusts."""

    certificate: Path
    key: Path
    authority: Path | None = None


@dataclass(frozen=True)
class Ingress:
    """Where agents of other machines connect.

    `host` is the name or address they use, `listen` the address of this machine that they
    arrive at. Without an `own` certificate the installation's authority makes one.
    """

    host: str
    port: int = PORT
    listen: str = "0.0.0.0"
    own: Certificate | None = None

    @property
    def tunnel_url(self) -> str:
        return address(self.host, self.port)

    @property
    def nats_url(self) -> str:
        return bus_address(self.host, self.port)

    def prepare(self, layout: Layout, now: datetime) -> Certificate:
        """The certificate to serve with; ours is made when it is missing or near its end."""
        if self.own is not None:
            return self.own
        authority.server_certificate(layout, _CERTIFICATE, [self.host], now)
        return Certificate(
            *authority.server_files(layout, _CERTIFICATE), authority.authority_file(layout)
        )


def address(host: str, port: int) -> str:
    """What agents dial tunnels back to."""
    return f"wss://{f'[{host}]' if ':' in host else host}:{port}"


def bus_address(host: str, port: int) -> str:
    """What agents reach the bus at."""
    return f"{address(host, port)}/bus"


def checked_host(value: str) -> str:
    """A name or an address that agents could use.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        if not _NAME.match(value) or value.replace(".", "").isdigit():
            raise argparse.ArgumentTypeError(
                f"{value!r} is neither a host's name nor an address; the port goes beside it"
            ) from None
        return value
    if found.is_unspecified:
        raise argparse.ArgumentTypeError(
            f"{value} is where to listen; say by which name or address agents reach this machine"
        )
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `up` that `from_arguments` reads."""
    group = parser.add_argument_group("agents of other machines")
    group.add_argument(
        "--agents-host",
        type=checked_host,
        metavar="HOST",
        help="let them in: the name or address by which they reach this machine",
    )
    group.add_argument("--agents-port", type=int, default=PORT, help="their port (%(default)s)")
    group.add_argument(
        "--agents-listen", metavar="ADDRESS", help="where to listen for them (everywhere)"
    )
    group.add_argument(
        "--agents-certificate", type=Path, metavar="FILE", help="a certificate (PEM) of your own"
    )
    group.add_argument("--agents-key", type=Path, metavar="FILE", help="its key (PEM)")
    group.add_argument(
        "--agents-ca",
        type=Path,
        metavar="FILE",
        help="what vouches for it (PEM), if every system does not know that already",
    )


def from_arguments(arguments: argparse.Namespace) -> Ingress | None:
    """What was asked for; None when nobody is to be let in.

    Raises:
        StartError: one option without another that it needs, or a file that is not there.
    """
    certificate, key, vouching = (
        arguments.agents_certificate,
        arguments.agents_key,
        arguments.agents_ca,
    )
    if arguments.agents_host is None:
        if certificate or key or vouching or arguments.agents_listen:
            raise StartError(
                "Agents of other machines need a name to reach this one by: "
                "make up AGENTS_HOST=hub.example.org"
            )
        return None
    if (certificate is None) != (key is None) or (vouching is not None and certificate is None):
        raise StartError(
            "A certificate of your own is AGENTS_CERTIFICATE and AGENTS_KEY together, "
            "and AGENTS_CA beside them where an authority of your own signed it."
        )
    for path in (certificate, key, vouching):
        if path is not None and not path.is_file():
            raise StartError(f"{path} is no file.")
    return Ingress(
        arguments.agents_host,
        arguments.agents_port,
        arguments.agents_listen or ("::" if ":" in arguments.agents_host else "0.0.0.0"),
        Certificate(certificate.resolve(), key.resolve(), vouching and vouching.resolve())
        if certificate
        else None,
    )
