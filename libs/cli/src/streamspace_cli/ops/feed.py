"""Feeding past events to somebody: a webhook that missed them, or a file.

A webhook gets one event per request, in order, as CloudEvents JSON with the headers of
Standard Webhooks; `webhook-id` is the event's own id, so that one that comes twice is
known. What does not work now is tried again with growing pauses; what is refused ends
the feed, which says where to go on.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

import httpx2

from streamspace_cli.exits import CliError, ExitCode
from streamspace_cli.ops.reading import cloud_event
from streamspace_common.bus import StreamMessage

_TIMEOUT = 15.0
_LONGEST_PAUSE = 30.0
_SECRET_MARK = "whsec_"  # noqa: S105 - a public mark


class Sink(Protocol):
    """Where events go."""

    async def put(self, event: dict[str, Any]) -> None: ...


@dataclass
class FileSink:
    """A line of JSON for each event."""

    file: TextIO

    async def put(self, event: dict[str, Any]) -> None:
        self.file.write(json.dumps(event, ensure_ascii=False) + "\n")


@dataclass
class Webhook:
    """An HTTP endpoint; `tries` for each event, with `pause` seconds before the second."""

    client: httpx2.AsyncClient
    url: str
    secret: bytes | None = None
    tries: int = 6
    pause: float = 0.5
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def put(self, event: dict[str, Any]) -> None:
        """Deliver one event.

        Raises:
            CliError: it was refused, or never taken.
        """
        body = json.dumps(event, ensure_ascii=False).encode()
        why = ""
        for attempt in range(self.tries):
            if attempt:
                await self.sleep(min(self.pause * 2 ** (attempt - 1), _LONGEST_PAUSE))
            try:
                answer = await self.client.post(
                    self.url, content=body, headers=self._headers(event, body), timeout=_TIMEOUT
                )
            except httpx2.TransportError as error:
                why = str(error) or type(error).__name__
                continue
            if answer.is_success:
                return
            why = f"status {answer.status_code}"
            if answer.status_code < 500 and answer.status_code not in {408, 425, 429}:
                raise CliError(f"{self.url} refuses event {event['id']}: {why}.")
            wait = answer.headers.get("Retry-After", "")
            if wait.isdigit():
                await self.sleep(min(float(wait), _LONGEST_PAUSE))
        raise CliError(
            f"{self.url} did not take event {event['id']} in {self.tries} tries: {why}.",
            ExitCode.UNREACHABLE,
        )

    def _headers(self, event: dict[str, Any], body: bytes) -> dict[str, str]:
        now = str(int(time.time()))
        headers = {
            "content-type": "application/cloudevents+json",
            "webhook-id": str(event["id"]),
            "webhook-timestamp": now,
        }
        if self.secret is not None:
            signed = f"{event['id']}.{now}.".encode() + body
            digest = hmac.new(self.secret, signed, hashlib.sha256).digest()
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return headers


def read_secret(text: str) -> bytes:
    """The key in a `whsec_...` text.

    Raises:
        CliError: it is none.
    """
    try:
        return base64.b64decode(text.strip().removeprefix(_SECRET_MARK), validate=True)
    except binascii.Error as error:
        raise CliError(
            "The webhook's secret is not base64.", ExitCode.USAGE, hint="It begins with whsec_."
        ) from error


async def feed(
    messages: AsyncIterator[StreamMessage],
    sink: Sink,
    *,
    rate: float,
    tell: Callable[[int], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Hand messages on, at most `rate` each second; returns how many.

    Raises:
        CliError: one could not be handed on; its `hint` says where to go on.
    """
    count = 0
    began = clock()
    async for message in messages:
        early = began + count / rate - clock()
        if early > 0:
            await sleep(early)
        try:
            await sink.put(cloud_event(message))
        except CliError as error:
            raise CliError(
                error.message,
                error.code,
                hint=f"{count} were handed on. Go on with --from seq:{message.sequence}.",
            ) from error
        count += 1
        tell(count)
    return count
