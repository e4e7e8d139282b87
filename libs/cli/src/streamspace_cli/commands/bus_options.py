"""How the commands that read streams are told where NATS is."""

from pathlib import Path
from typing import Annotated

import typer

NatsUrl = Annotated[
    str | None,
    typer.Option("--nats-url", envvar="STREAMSPACE_NATS_URL", help="NATS; the local one's."),
]
NatsCreds = Annotated[
    Path | None,
    typer.Option(
        "--nats-creds", envvar="STREAMSPACE_NATS_CREDENTIALS", help="A .creds file for it."
    ),
]
NatsCa = Annotated[
    Path | None,
    typer.Option(
        "--nats-ca", envvar="STREAMSPACE_NATS_CA_FILE", help="Certificates trusted for tls://."
    ),
]
Data = Annotated[
    Path,
    typer.Option("--data", help="The folder of a StreamSpace on this machine (`make up`)."),
]
DATA = Path(".streamspace")
STREAM_NAMES = ("COMMANDS", "EVENTS", "DLQ", "ADVISORIES")
"""A copy, since reading the contracts takes a moment."""
