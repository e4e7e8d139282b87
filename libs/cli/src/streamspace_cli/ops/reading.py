"""Reading a stream's messages in order, and what they look like decoded."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streamspace_cli import moments
from streamspace_cli.exits import CliError, ExitCode
from streamspace_common.bus import StreamMessage, Streams

_PAUSE = 0.5
"""Seconds between looks at a stream that had nothing new."""
_SEQUENCE = "seq:"
START_HELP = f"{moments.HELP} Or seq:123 for a message's number."


@dataclass(frozen=True)
class Selection:
    """Which messages: of a stream, by subject, from a number or a time, until a time.

    `start` None stands for those that are stored from now on.
    """

    stream: str
    subject: str = ">"
    start: int | datetime | None = None
    until: datetime | None = None


def parse_start(text: str) -> int | datetime:
    """A message's number or a time.

    Raises:
        CliError: it is neither.
    """
    if text == "start":
        return 1
    if text.startswith(_SEQUENCE):
        number = text.removeprefix(_SEQUENCE)
        if not (number.isascii() and number.isdigit()):
            raise CliError(f"{text} is not a message's number.", ExitCode.USAGE)
        return max(int(number), 1)
    return moments.parse(text)


async def read(
    streams: Streams, selection: Selection, *, follow: bool, pause: float = _PAUSE
) -> AsyncGenerator[StreamMessage]:
    """Messages in order; without `follow`, those that are there when reading begins."""
    stream, subject = selection.stream, selection.subject
    last = (await streams.state(stream)).last_sequence
    message: StreamMessage | None = None
    match selection.start:
        case None:
            position = last + 1
        case int():
            position = selection.start
        case moment:
            position = last + 1
            message = await streams.first_since(stream, subject, moment)
    while True:
        if message is None:
            message = await streams.first_from(stream, subject, position)
        if message is None:
            if not follow:
                return
            await asyncio.sleep(pause)
            continue
        if not follow and message.sequence > last:
            return
        if selection.until is not None and message.time > selection.until:
            return
        yield message
        position, message = message.sequence + 1, None


def decoded(message: StreamMessage) -> dict[str, Any]:
    """A message as data: JSON where it is JSON, text otherwise."""
    return {
        "sequence": message.sequence,
        "time": message.time.isoformat(),
        "subject": message.subject,
        "type": message.type or None,
        "headers": dict(message.headers),
        "payload": _content(message.payload),
    }


def cloud_event(message: StreamMessage) -> dict[str, Any]:
    """An event as CloudEvents' JSON form, with its place in the stream as an extension."""
    headers: Mapping[str, str] = message.headers
    return {
        "specversion": headers.get("ce-specversion", "1.0"),
        "id": headers.get("ce-id") or f"{message.sequence}",
        "source": headers.get("ce-source", "streamspace"),
        "type": message.type or "unknown",
        "subject": headers.get("ce-subject"),
        "time": headers.get("ce-time") or message.time.isoformat(),
        "datacontenttype": "application/json",
        "sequence": str(message.sequence),
        "data": _content(message.payload),
    }


def _content(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode("utf-8", "replace")
