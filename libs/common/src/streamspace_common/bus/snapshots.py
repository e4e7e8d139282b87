"""Backups of whole streams, as the server itself writes and reads them.

A snapshot holds everything of a stream: messages with their sequences and times, its
configuration, and its durables with what they have acknowledged. Chunks come as fast as
they are taken: the server asks for a sign now and then and stops sending without one.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nats import errors as nats_errors
from nats.aio.msg import Msg

from streamspace_common.bus.errors import ApiError, BusError, BusUnavailableError
from streamspace_common.bus.link import Link

_CHUNK = 128 * 1024
_PATIENCE = 30.0
"""Seconds for the next chunk, and for the server to take one."""
_DONE = "204"


@dataclass(frozen=True)
class StreamCopy:
    """What a snapshot is of, as the server told: it wants both back to restore it."""

    config: Mapping[str, Any]
    state: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def messages(self) -> int:
        return int(self.state.get("messages", 0))


async def snapshot(link: Link, stream: str, write: Callable[[bytes], object]) -> StreamCopy:
    """Hand a stream's snapshot to `write`, chunk after chunk.

    Raises:
        ApiError: there is no such stream.
        BusUnavailableError: the server fell silent, or broke off.
    """
    inbox = link.client.new_inbox()
    chunks: asyncio.Queue[Msg] = asyncio.Queue()
    try:
        subscription = await link.client.subscribe(inbox, cb=chunks.put)
    except (nats_errors.Error, OSError) as error:
        raise BusUnavailableError(str(error)) from error
    try:
        answer = await link.api(
            f"STREAM.SNAPSHOT.{stream}",
            {"deliver_subject": inbox, "chunk_size": _CHUNK},
            timeout=_PATIENCE,
        )
        while (chunk := await _next(chunks, stream)).data:
            write(chunk.data)
            if chunk.reply:
                await link.publish(chunk.reply)
        status = (chunk.headers or {}).get("Status", _DONE)
        if status != _DONE:
            words = (chunk.headers or {}).get("Description", "")
            raise BusUnavailableError(f"the copy of {stream} broke off: {status} {words}".strip())
    finally:
        if link.connected:
            await subscription.unsubscribe()
    return StreamCopy(answer["config"], answer["state"])


async def _next(chunks: asyncio.Queue[Msg], stream: str) -> Msg:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await chunks.get()
    except TimeoutError as error:
        raise BusUnavailableError(f"the copy of {stream} does not go on") from error


async def restore(link: Link, copy: StreamCopy, chunks: Iterable[bytes]) -> Mapping[str, Any]:
    """Make a stream anew from its snapshot; returns its state. There must be none.

    Raises:
        ApiError: the stream exists, or the server will not take the snapshot.
        BusError: the server fell silent.
    """
    begun = await link.api(
        f"STREAM.RESTORE.{copy.name}",
        {"config": dict(copy.config), "state": dict(copy.state)},
        timeout=_PATIENCE,
    )
    subject = str(begun["deliver_subject"])
    for chunk in chunks:
        answer = await link.request(subject, chunk, timeout=_PATIENCE)
        if answer.data:
            _refuse(subject, answer.data)
    ended = await link.request(subject, b"", timeout=_PATIENCE)
    state: Mapping[str, Any] = _refuse(subject, ended.data).get("state", {})
    return state


def _refuse(subject: str, data: bytes) -> Mapping[str, Any]:
    """The body of an answer.

    Raises:
        ApiError: it is a refusal.
    """
    try:
        body: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise BusError(f"{subject}: the server answered what is no JSON") from error
    if error_ := body.get("error"):
        raise ApiError(
            subject,
            int(error_.get("code", 500)),
            int(error_.get("err_code", 0)),
            str(error_.get("description", "")),
        )
    return body


async def delete(link: Link, stream: str) -> None:
    """Remove a stream with everything in it; one that is not there is no error."""
    try:
        await link.api(f"STREAM.DELETE.{stream}", timeout=_PATIENCE)
    except ApiError as error:
        if not error.is_missing:
            raise
