"""Backing streams up, and putting them back."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamspace_cli.commands.bus_options import (
    DATA,
    STREAM_NAMES,
    Data,
    NatsCa,
    NatsCreds,
    NatsUrl,
)
from streamspace_cli.commands.streams import known
from streamspace_cli.output import Column, size
from streamspace_cli.run import Run, command, group

if TYPE_CHECKING:
    from streamspace_cli.ops.archive import Entry
    from streamspace_common.bus import Streams

backup_app = group("Backups of streams, with sequences and what consumers have acknowledged.")
restore_app = group("Putting streams back from a backup.")

_ENTRIES = (
    Column("Stream", "stream"),
    Column("Messages", "messages"),
    Column("Size", lambda item: size(item["size"])),
    Column("First", "firstSequence"),
    Column("Last", "lastSequence"),
)
File = Annotated[Path, typer.Option("--file", "-f", help="The backup.")]


@command(backup_app, "streams")
def backup(
    run: Run,
    file: File,
    stream: Annotated[
        list[str] | None, typer.Option("--stream", "-s", help="Only this one; all of them.")
    ] = None,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
    nats_ca: NatsCa = None,
    data: Data = DATA,
) -> None:
    """Copy streams into one file, readable by you alone, while everything runs."""
    from streamspace_cli.ops import archive
    from streamspace_cli.ops.connection import Target, with_streams

    names = [known(name) for name in stream or STREAM_NAMES]

    async def work(streams: "Streams") -> "list[Entry]":
        return await archive.write(streams, names, file, run.note)

    _show(run, with_streams(Target(nats_url, nats_creds, nats_ca, data), "ops", work))


@command(backup_app)
def check(run: Run, file: File) -> None:
    """Read a backup through, and show what it holds."""
    from streamspace_cli.ops import archive

    _show(run, archive.check(file))


@command(restore_app, "streams")
def restore(
    run: Run,
    file: File,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove what is in these streams now.")
    ] = False,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
    nats_ca: NatsCa = None,
    data: Data = DATA,
) -> None:
    """Put streams back as a backup holds them; stop the services before."""
    from streamspace_cli.ops import archive
    from streamspace_cli.ops.connection import Target, with_streams

    async def work(streams: "Streams") -> "list[Entry]":
        return await archive.restore(streams, file, replace=replace, tell=run.note)

    _show(run, with_streams(Target(nats_url, nats_creds, nats_ca, data), "restore", work))


def _show(run: Run, entries: "Sequence[Entry]") -> None:
    run.printer.many([entry.as_data() for entry in entries], _ENTRIES)
