"""Core NATS subscriptions: messages that nobody stores, such as heartbeats."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as ClientSubscription

from streamspace_common.bus.envelope import TYPE, carried
from streamspace_common.bus.errors import BusUnavailableError
from streamspace_common.bus.link import Link

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CoreMessage:
    """`type` is the `ce-type` header, empty where the publisher set none."""

    subject: str
    type: str
    payload: bytes
    headers: Mapping[str, str]


CoreHandler = Callable[[CoreMessage], Awaitable[None]]


class Subscription:
    """Interest in a subject; messages are handled one after the other."""

    def __init__(self, link: Link, subject: str, handler: CoreHandler) -> None:
        self._link = link
        self._subject = subject
        self._handler = handler
        self._subscription: ClientSubscription | None = None

    async def start(self, queue: str, pending_limit: int) -> None:
        """Subscribe; on return the server knows of it."""
        try:
            self._subscription = await self._link.client.subscribe(
                self._subject, queue=queue, cb=self._on_message, pending_msgs_limit=pending_limit
            )
        except (nats_errors.Error, OSError) as error:
            raise BusUnavailableError(f"cannot subscribe to {self._subject}: {error}") from error
        await self._link.until_known()

    async def stop(self) -> None:
        """Receive no more; what was received but not begun is forgotten."""
        if self._subscription is None or self._link.client.is_closed:
            return
        try:
            await self._subscription.unsubscribe()
        except (nats_errors.Error, OSError) as error:
            log.debug("bus.unsubscribe_failed", subject=self._subject, error=str(error))

    async def _on_message(self, message: Msg) -> None:
        headers = message.headers or {}
        with carried(headers):
            try:
                await self._handler(
                    CoreMessage(message.subject, headers.get(TYPE, ""), message.data, headers)
                )
            except Exception:
                log.exception("bus.message_handler_failed", subject=message.subject)
