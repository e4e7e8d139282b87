"""Streams as NATS holds them: how much, how far their readers are, and what is in them."""

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamspace_cli.commands.bus_options import (
    DATA,
    STREAM_NAMES,
    Data,
    NatsCa,
    NatsCreds,
    NatsUrl,
)
from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.output import Column, Format, moment, plain, since, size
from streamspace_cli.run import Run, command, group

if TYPE_CHECKING:
    from streamspace_common.bus import Streams

_LONGEST = 200
"""Characters of a payload in a line; JSON and YAML show all of it."""
app = group("Streams: what NATS holds, and how far its readers are; for operators.")

_STREAMS = (
    Column("Stream", "name"),
    Column("Messages", "messages"),
    Column("Size", lambda item: size(item["bytes"])),
    Column("At most", lambda item: size(item["limit"]) if item["limit"] >= 0 else None),
    Column("First", "firstSequence"),
    Column("Last", "lastSequence"),
    since("Oldest", "firstAt"),
    since("Newest", "lastAt"),
    Column("Consumers", lambda item: len(item["consumers"])),
)
_LAG = (
    Column("Stream", "stream"),
    Column("Consumer", "name"),
    Column("Pending", "pending"),
    Column("Unacknowledged", "ackPending"),
    Column("Redelivered", "redelivered"),
    Column("Pulls", "waiting"),
    Column("Delivered", "delivered"),
)

Stream = Annotated[str, typer.Option("--stream", "-s", help=", ".join(STREAM_NAMES))]
Subject = Annotated[str, typer.Option("--subject", help="A NATS filter, as evt.*.session.>")]


@command(app)
def info(
    run: Run,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
    nats_ca: NatsCa = None,
    data: Data = DATA,
) -> None:
    """Show the streams, what they hold, and their consumers with what waits for each."""
    found = _look(nats_url, nats_creds, nats_ca, data)
    if run.printer.format is not Format.TABLE:
        run.printer.many(found, ())
        return
    run.printer.many(found, _STREAMS)
    run.printer.line("")
    run.printer.many(_lags(found), _LAG)


@command(app)
def lag(
    run: Run,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
    nats_ca: NatsCa = None,
    data: Data = DATA,
) -> None:
    """Show what waits for each consumer. No pulls means that nobody is there to take it."""
    run.printer.many(_lags(_look(nats_url, nats_creds, nats_ca, data)), _LAG)


@command(app)
def tail(
    run: Run,
    stream: Stream = "EVENTS",
    subject: Subject = ">",
    from_: Annotated[
        str | None,
        typer.Option("--from", help="A time, `15m` for 15 minutes ago, `seq:123`, or `start`."),
    ] = None,
    follow: Annotated[
        bool | None,
        typer.Option(
            "--follow/--no-follow", help="Wait for what comes; by default without --limit."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="So many, then end.", min=1)] = None,
    nats_url: NatsUrl = None,
    nats_creds: NatsCreds = None,
    nats_ca: NatsCa = None,
    data: Data = DATA,
) -> None:
    """Show messages, decoded, as they come; until Ctrl-C."""
    from streamspace_cli.ops.connection import Target, with_streams
    from streamspace_cli.ops.reading import Selection, decoded, parse_start, read

    start = parse_start(from_) if from_ is not None else None
    selection = Selection(known(stream), subject, start)
    wait = follow if follow is not None else limit is None or start is None

    async def show(streams: "Streams") -> None:
        shown = 0
        async for message in read(streams, selection, follow=wait):
            item = decoded(message)
            run.printer.record(item, _line(item))
            shown += 1
            if limit is not None and shown >= limit:
                return

    with_streams(Target(nats_url, nats_creds, nats_ca, data), "ops", show)


def known(stream: str) -> str:
    """A stream's name, however it was written.

    Raises:
        CliError: there is none like it.
    """
    if stream.upper() not in STREAM_NAMES:
        raise CliError(
            f"There is no stream {stream}; there are {', '.join(STREAM_NAMES)}.", ExitCode.USAGE
        )
    return stream.upper()


def _look(nats_url: Any, nats_creds: Any, nats_ca: Any, data: Any) -> list[dict[str, Any]]:
    from streamspace_cli.ops.connection import Target, with_streams

    async def look(streams: "Streams") -> list[dict[str, Any]]:
        return [await _described(streams, name) for name in STREAM_NAMES]

    return with_streams(Target(nats_url, nats_creds, nats_ca, data), "ops", look)


async def _described(streams: "Streams", name: str) -> dict[str, Any]:
    state = await streams.state(name)
    return {
        "name": state.name,
        "messages": state.messages,
        "bytes": state.bytes,
        "limit": state.limit,
        "firstSequence": state.first_sequence,
        "lastSequence": state.last_sequence,
        "firstAt": _written(state.first_at),
        "lastAt": _written(state.last_at),
        "consumers": [
            {
                "name": consumer,
                "pending": lag.pending,
                "ackPending": lag.ack_pending,
                "redelivered": lag.redelivered,
                "waiting": lag.waiting,
                "delivered": lag.delivered,
            }
            for consumer, lag in sorted((await streams.consumers(name)).items())
        ],
    }


def _lags(streams: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"stream": stream["name"], **consumer}
        for stream in streams
        for consumer in stream["consumers"]
    ]


def _written(time: datetime | None) -> str | None:
    return time.isoformat() if time is not None else None


def _line(item: dict[str, Any]) -> str:
    payload = item["payload"]
    text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 1]}…"
    return plain(f"{item['sequence']}  {moment(item['time'])}  {item['subject']}  {text}")
