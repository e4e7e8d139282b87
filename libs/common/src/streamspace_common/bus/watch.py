"""What the client tells of its connection: put into words, waited for, and passed on."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from nats import errors as nats_errors

from streamspace_common.bus.client import Client, is_refusal
from streamspace_common.bus.replies import Replies

log = structlog.get_logger(__name__)

Reconnected = Callable[[], None]
_REMIND_EVERY = 30.0

# What the client reports just before `disconnected_cb` says it again.
_BROKEN = (OSError, nats_errors.UnexpectedEOF, nats_errors.StaleConnectionError)


class Watch:
    """Watches one client's connection.

    Args:
        name: the client's, for the log.
        client: whose connection it is.
        replies: requests whose answers come over it.
        on_closed: called when the client gave up for good.
        on_refused: called each time that the server refuses the credential.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        replies: Replies,
        on_closed: Callable[[], None] | None,
        on_refused: Callable[[], None] | None,
    ) -> None:
        self._name = name
        self._client = client
        self._replies = replies
        self._on_closed = on_closed
        self._on_refused = on_refused
        self._reconnected: dict[object, Reconnected] = {}
        self._last_reminder = float("-inf")
        self.connected = asyncio.Event()
        """Set while there is a connection; the client itself may know earlier."""
        self.leaving = False
        """Whether the connection is ours to end: its end is no news then."""
        self.renewing = False
        """Whether it is given up for another one, with a newer credential."""
        self.impatient = False
        """Whether somebody waits for the first connection who is told what went wrong."""
        self.refusal: Exception | None = None
        self.trouble: Exception | None = None

    def callbacks(self) -> dict[str, Any]:
        """For the client's `connect`."""
        return {
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "closed_cb": self._on_client_closed,
            "lame_duck_mode_cb": self._on_lame_duck,
        }

    @property
    def server(self) -> str:
        """Host and port of the server in use, never its credentials."""
        url = self._client.connected_url
        return f"{url.hostname}:{url.port}" if url else "none"

    def on_reconnected(self, callback: Reconnected) -> Callable[[], None]:
        """Have `callback` called after each reconnect; returns what takes it back."""
        key = object()
        self._reconnected[key] = callback

        def forget() -> None:
            self._reconnected.pop(key, None)

        return forget

    async def _on_error(self, error: Exception) -> None:
        if is_refusal(error):
            self._refused(error)
        elif isinstance(error, nats_errors.SlowConsumerError):
            log.warning("bus.messages_dropped", subject=error.subject)
        elif "permissions violation" in str(error).lower():
            log.error("bus.permission_denied", client=self._name, error=words(error))
            self._replies.deny(str(error).lower())
        elif isinstance(error, _BROKEN) and self._client.is_connected:
            log.debug("bus.connection_broken", error=words(error))
        elif self._client.is_connected:
            log.error("bus.error", error=words(error), exc_info=error)
        else:
            self._remind(error)

    def _refused(self, error: Exception) -> None:
        self.refusal = error
        self._remind(error)
        if self._on_refused is not None:
            self._on_refused()

    def _remind(self, error: Exception) -> None:
        """One line when the server is away, and one each half minute while it stays so."""
        if self.impatient:
            # The caller is told, and says it in words of their own.
            self.trouble = error
            return
        now = asyncio.get_running_loop().time()
        if now - self._last_reminder >= _REMIND_EVERY:
            self._last_reminder = now
            log.warning("bus.waiting_for_server", error=words(error), client=self._name)

    async def _on_disconnected(self) -> None:
        self.connected.clear()
        self._replies.lose()
        if not self.leaving and not self.renewing:
            log.warning("bus.disconnected", client=self._name)

    async def _on_reconnected(self) -> None:
        self._last_reminder = float("-inf")
        self.renewing = False
        self.connected.set()
        log.info("bus.reconnected", server=self.server)
        for callback in tuple(self._reconnected.values()):
            callback()

    async def _on_lame_duck(self) -> None:
        log.warning("bus.server_is_leaving", server=self.server)

    async def _on_client_closed(self) -> None:
        self.connected.clear()
        if self.leaving:
            return
        log.error("bus.closed", client=self._name, error=words(self._client.last_error))
        if self._on_closed is not None:
            self._on_closed()


def words(error: Exception | None) -> str:
    """What an error says, or its name where it says nothing."""
    return (str(error) or type(error).__name__) if error else "unknown"
