"""Asking a durable for messages: continuous pull requests with exact accounting.

The vendor's `fetch` stalls with heartbeats and loses a request at a server restart, so
the requests are made here. Each names how many messages there is room for and lives
for half a minute; the server beats every two seconds while one is open. What a
request did not deliver is told when it ends (`Nats-Pending-Messages`), so `outstanding`
is always the number of messages that may still arrive unasked. After a reconnect, or
when the beat stops, everything outstanding is written off and asked for anew. Should
an old request be answered after all, a few more messages arrive than there is room
for, and none is lost.

Only `CONSUMER.MSG.NEXT` of the one durable and our own inbox are needed, which is all
that an agent may do.
"""

import asyncio
import json
import random
from collections.abc import Callable

import structlog
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from streamspace_common.bus.errors import BusUnavailableError
from streamspace_common.bus.link import Link
from streamspace_common.contracts.streams import Durable

log = structlog.get_logger(__name__)

_SECOND = 1_000_000_000
_EXPIRES = 30.0
_HEARTBEAT = 2.0
_SILENCE = 2 * _HEARTBEAT + 1.0
_LONGEST_PAUSE = 2.0
_LARGEST_BATCH = 256

_NO_RESPONDERS = "503"
_HEARTBEAT_STATUS = "100"
_ENDED = frozenset({"404", "408", "409"})


class Puller:
    """The open pull requests of one durable.

    `on_message` gets each message; `wake` is called whenever it may be time to
    `request` again.
    """

    def __init__(
        self,
        link: Link,
        durable: Durable,
        on_message: Callable[[Msg], None],
        wake: Callable[[], None],
    ) -> None:
        self._link = link
        self._on_message = on_message
        self._wake = wake
        self._durable = durable
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{durable.stream}.{durable.name}"
        self.outstanding = 0
        self._subscription: Subscription | None = None
        self._inbox = link.client.new_inbox()
        self._epoch = 0
        self._heard = 0.0
        self._not_before = 0.0
        self._failures = 0
        self._closed = False
        self._forget = link.on_reconnected(self._on_reconnected)

    @property
    def next_look(self) -> float:
        """Loop time at which `request` should be called again at the latest."""
        now = asyncio.get_running_loop().time()
        if now < self._not_before:
            return self._not_before
        if not self._link.connected:
            # Silence is no wonder, and the reconnect wakes whoever waits.
            return now + _SILENCE
        return self._heard + _SILENCE if self.outstanding else now + _SILENCE

    async def request(self, room: int) -> None:
        """Ask for what there is room for and not yet asked for; sees to lost requests."""
        now = asyncio.get_running_loop().time()
        if self._closed or now < self._not_before or not self._link.connected:
            return
        if self.outstanding and now >= self._heard + _SILENCE:
            self._failed(f"no answer for {_SILENCE:g} s; are the rights missing?")
            return
        wanted = min(room - self.outstanding, _LARGEST_BATCH)
        if wanted <= 0 or (self.outstanding and wanted < room / 4):
            return
        try:
            await self._ask(wanted)
        except BusUnavailableError as error:
            self._failed(str(error))

    async def close(self) -> None:
        """Ask no more; on return everything that was on its way has arrived."""
        if self._closed:
            return
        self._closed = True
        self.outstanding = 0
        self._forget()
        subscription, self._subscription = self._subscription, None
        if subscription is None or self._link.client.is_closed:
            return
        try:
            await subscription.drain()  # type: ignore[no-untyped-call]
        except (nats_errors.Error, OSError) as error:
            log.debug("bus.pull_not_drained", error=str(error))

    async def _ask(self, wanted: int) -> None:
        if self._subscription is None:
            await self._subscribe()
        order = {
            "batch": wanted,
            "expires": int(_EXPIRES * _SECOND),
            "idle_heartbeat": int(_HEARTBEAT * _SECOND),
        }
        if not self.outstanding:
            self._heard = asyncio.get_running_loop().time()
        self.outstanding += wanted
        reply = f"{self._inbox}.{self._epoch}"
        await self._link.publish(self._subject, json.dumps(order).encode(), reply=reply)

    async def _subscribe(self) -> None:
        try:
            self._subscription = await self._link.client.subscribe(
                f"{self._inbox}.*", cb=self._on_arrival
            )
        except (nats_errors.Error, OSError) as error:
            raise BusUnavailableError(str(error)) from error

    async def _on_arrival(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status is None or message.data:
            self._answered()
            self.outstanding = max(0, self.outstanding - 1)
            self._on_message(message)
        elif message.subject == f"{self._inbox}.{self._epoch}" and not self._closed:
            self._on_status(status, headers.get("Description", ""), headers)

    def _on_status(self, status: str, description: str, headers: dict[str, str]) -> None:
        if status == _HEARTBEAT_STATUS:
            self._answered()
            return
        if status == _NO_RESPONDERS:
            self._failed("the durable does not exist yet")
            return
        left = headers.get("Nats-Pending-Messages")
        self.outstanding = max(0, self.outstanding - int(left)) if left else 0
        if status in _ENDED and "deleted" not in description.lower():
            self._answered()
            self._wake()
        else:
            self._failed(f"{status} {description}")

    def _answered(self) -> None:
        self._heard = asyncio.get_running_loop().time()
        if self._failures:
            self._failures = 0
            log.info("bus.consuming", durable=self._durable.name)

    def _failed(self, reason: str) -> None:
        """Write off what is outstanding and wait a little, longer each time."""
        self._failures += 1
        if self._failures == 1:
            log.warning("bus.cannot_pull", durable=self._durable.name, reason=reason)
        pause = random.uniform(0.05, min(_LONGEST_PAUSE, 0.1 * 2 ** min(self._failures, 10)))
        self._write_off(asyncio.get_running_loop().time() + pause)

    def _on_reconnected(self) -> None:
        self._write_off(0.0)

    def _write_off(self, not_before: float) -> None:
        self._epoch += 1
        self._not_before = not_before
        self.outstanding = 0
        self._wake()
