"""Replaying: events to whoever missed them, desired states to a cluster."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamspace_cli import complete, moments
from streamspace_cli.commands.bus_options import DATA, Data, NatsCa, NatsCreds, NatsUrl
from streamspace_cli.commands.streams import Subject
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Column, counted
from streamspace_cli.run import Run, command, group

if TYPE_CHECKING:
    from streamspace_cli.ops.feed import Sink
    from streamspace_common.bus import Streams

app = group(
    "Replay: past events to whoever missed them, desired states to a cluster, a projection anew."
)

_TELL_EVERY = 1000
_REBUILT = (
    Column("The same as live", "same"),
    Column("Events", "events"),
    Column("Sessions", "sessions"),
    Column("Commands", "commands"),
    Column("Rows that differ", "rowsThatDiffer"),
    Column("Rebuilt in (s)", "rebuiltInSeconds"),
    Column("Compared in (s)", "comparedInSeconds"),
)


@command(app)
def feed(
    run: Run,
    from_: Annotated[
        str, typer.Option("--from", help="A time, `2h` for two hours ago, `seq:123`, or `start`.")
    ],
    to: Annotated[str, typer.Option(help="A time; now.")] = "now",
    webhook: Annotated[str | None, typer.Option(help="Post each event to this address.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Write a line of JSON for each event.")
    ] = None,
    subject: Subject = ">",
    rate: Annotated[float, typer.Option(help="Events in a second, at most.", min=0.01)] = 50.0,
    secret_file: Annotated[
        Path | None, typer.Option(help="A file with whsec_...: sign as Standard Webhooks do.")
    ] = None,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
    nats_ca: NatsCa = None,
    data: Data = DATA,
) -> None:
    """Feed the events of a time to a webhook or a file, in order."""
    from streamspace_cli.ops.connection import Target, with_streams
    from streamspace_cli.ops.feed import feed as hand_on
    from streamspace_cli.ops.reading import Selection, parse_start, read

    if (webhook is None) == (file is None):
        raise CliError("Give either --webhook or --file.", ExitCode.USAGE)
    selection = Selection("EVENTS", subject, parse_start(from_), moments.parse(to))

    def tell(count: int) -> None:
        if count % _TELL_EVERY == 0:
            run.note(f"{count} events")

    async def work(streams: "Streams") -> int:
        with ExitStack() as stack:
            sink = _sink(stack, webhook, file, secret_file)
            pace = float("inf") if file is not None else rate
            return await hand_on(read(streams, selection, follow=False), sink, rate=pace, tell=tell)

    count = with_streams(Target(nats_url, nats_creds, nats_ca, data), "ops", work)
    run.note(f"{count} events were handed on.")


@command(app)
def cluster(
    run: Run,
    cluster: Annotated[str, typer.Argument(help="Its id.", autocompletion=complete.clusters)],
) -> None:
    """Send a cluster the desired state of each of its sessions anew."""
    with run.api() as api:
        answer = api.post(f"/clusters/{cluster}/redrive")
    run.printer.record(answer, f"{counted(answer['commands'], 'command')} sent again.")


@command(app)
def rebuild(
    run: Run,
    into: Annotated[str, typer.Option(help="A schema of the session database, to be made.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop the schema if it exists.")
    ] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Compare only; leave no schema behind.")
    ] = False,
    data: Data = DATA,
) -> None:
    """Rebuild sessions, commands and history from EVENTS, and compare them with the live ones.

    Where the session service is installed, with its settings. Ends with 1 when they differ.
    """
    from streamspace_cli.ops import rebuilding

    options = ["--into", into]
    options += ["--replace"] if replace else []
    options += ["--discard"] if discard else []
    found = rebuilding.rebuild(options, rebuilding.settings_of_service(data))
    run.printer.one(found, _REBUILT)
    if not found["same"]:
        for one in found["differences"]:
            run.note("{table} {key} {column}: live {live}, rebuilt {rebuilt}".format_map(one))
        raise CliError(f"{found['rowsThatDiffer']} rows are not what the events tell.")


def _sink(
    stack: ExitStack, webhook: str | None, file: Path | None, secret_file: Path | None
) -> "Sink":
    import httpx2

    from streamspace_cli.ops.feed import FileSink, Webhook, read_secret

    if file is not None:
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise CliError(f"{file} exists already.", ExitCode.CONFLICT) from error
        except OSError as error:
            raise CliError(f"{file} cannot be written: {error.strerror}.") from error
        return FileSink(stack.enter_context(os.fdopen(handle, "w")))
    secret = None
    if secret_file is not None:
        try:
            secret = read_secret(secret_file.read_text())
        except OSError as error:
            raise CliError(f"{secret_file} cannot be read: {error.strerror}.") from error
    return Webhook(httpx2.AsyncClient(), webhook or "", secret)
