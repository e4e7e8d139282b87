"""One supervised connection to NATS; the only place that handles the vendor's client.

The client reconnects by itself for ever, with growing jittered pauses, so a server
restart needs nothing from anybody. What it does not survive is a fatal `-ERR`
(expired or revoked credentials, too many connections): then it closes for good and
`on_closed` is called, so that a supervisor ends the process and a fresh one begins. An
`Identity` is somebody's to renew: with one, a refused credential is told by `on_refused`,
and tried again.

While disconnected nothing is buffered on purpose: `request` waits for the connection
first and gives up with `BusUnavailableError`, so that no request is carried out long
after its caller has gone. A request whose answer can no longer come, because the
connection broke, fails at once instead of waiting for its timeout (the vendor's own
`request` does not), which is why replies are matched here.
"""

import asyncio
import json
import random
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import structlog
from nats import errors as nats_errors
from nats.aio.client import Server
from nats.aio.msg import Msg

from streamspace_common.bus.client import Client
from streamspace_common.bus.encryption import is_websocket
from streamspace_common.bus.errors import (
    ApiError,
    BusUnavailableError,
    ConnectionLostError,
    CredentialRefusedError,
    MessageTooLargeError,
    NobodyAnswersError,
)
from streamspace_common.bus.identity import Identity
from streamspace_common.bus.replies import Replies
from streamspace_common.bus.transport import SteadyTransport
from streamspace_common.bus.watch import Reconnected, Watch, words
from streamspace_common.bus.websocket import WebSocketTransport
from streamspace_common.contracts import subjects
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.runtime.proxies import Proxies

log = structlog.get_logger(__name__)

PING_INTERVAL = 5
"""Seconds; a connection that carries nothing any more is given up after three of them at the
most. A server that hung for 8 seconds and goes on costs nobody a connection."""
_LONGEST_PAUSE = 4.0
_MAX_PENDING = 8 * 1024 * 1024
# Seconds; a caller that tries again at once must not keep the client from noticing.
_NOTICE = 0.01
_NO_RESPONDERS = "503"
# A cluster of servers that has no leader for this just now.
_NO_LEADER = frozenset({10008, 10009})


def _pause(failed_tries: int) -> float:
    """Seconds before the next try: jittered, so that clients do not come back in step."""
    return random.uniform(0.02, min(_LONGEST_PAUSE, 0.2 * 2 ** min(failed_tries, 10)))


def _next_server(servers: list[Server], _info: dict[str, Any]) -> tuple[Server | None, float]:
    server = min(servers, key=lambda candidate: candidate.reconnects)
    return server, _pause(server.reconnects)


class Link:
    """A connection, what watches it, and requests over it."""

    def __init__(
        self,
        name: str,
        on_closed: Callable[[], None] | None,
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.client = Client()
        self._replies = Replies()
        self._hears_agents = False
        self._watch = Watch(name, self.client, self._replies, on_closed, on_refused)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str,
        credentials: Path | Identity | None,
        encryption: ssl.SSLContext | None = None,
        inbox: str,
        on_closed: Callable[[], None] | None,
        on_refused: Callable[[], None] | None = None,
        ping_interval: int = PING_INTERVAL,
        proxies: Proxies | None = None,
        patience: float | None = None,
    ) -> Self:
        """Connect; tries for ever until the server is there, or for `patience` seconds.

        `url` may name several servers of one cluster, separated by commas. With
        `encryption` the connection begins with TLS: waiting for the server to ask for it,
        as the client does by default, lets whoever is in between leave the question out.

        Raises:
            CredentialRefusedError: with `patience`: the server does not take the credential.
            BusUnavailableError: with `patience`: it is over.
        """
        link = cls(name, on_closed, on_refused)
        link._watch.impatient = patience is not None
        if is_websocket(url):
            link.client._transport = WebSocketTransport(proxies or Proxies())  # noqa: SLF001 - no setting for it
        else:
            link.client._transport = SteadyTransport()  # noqa: SLF001 - as above
        options = {
            "name": name,
            "inbox_prefix": inbox,
            "tls": encryption,
            "tls_handshake_first": encryption is not None and not is_websocket(url),
            "ping_interval": ping_interval,
            "allow_reconnect": patience is None,
            **link._who(credentials),
        }
        try:
            async with asyncio.timeout(patience):
                await link._connect([part.strip() for part in url.split(",")], options)
        except (OSError, nats_errors.Error) as error:
            # Only with patience: without it every failure is tried again.
            await link.close()
            if link._watch.refusal is not None:
                raise CredentialRefusedError(words(link._watch.refusal)) from error
            # That the time is over says less than what went wrong meanwhile.
            raise BusUnavailableError(words(link._watch.trouble or error)) from error
        except asyncio.CancelledError:
            await link.close()
            raise
        link._replies.inbox = link.client.new_inbox()
        await link.client.subscribe(f"{link._replies.inbox}.*", cb=link._replies.take)
        link._watch.connected.set()
        log.info("bus.connected", server=link.server)
        return link

    async def _connect(self, servers: list[str], options: dict[str, Any]) -> None:
        await self.client.connect(
            servers,
            **self._watch.callbacks(),
            max_reconnect_attempts=-1,
            reconnect_time_wait=random.uniform(0.2, 1.0),  # type: ignore[arg-type]
            reconnect_to_server_handler=_next_server,
            connect_timeout=5,
            max_outstanding_pings=2,
            drain_timeout=25,
            pending_size=_MAX_PENDING,
            **options,
        )

    def _who(self, credentials: Path | Identity | None) -> dict[str, Any]:
        """The client's options for whoever it is to be."""
        if not isinstance(credentials, Identity):
            return {"user_credentials": str(credentials) if credentials else None}
        self.client.renewable = True
        return {"user_jwt_cb": credentials.show, "signature_cb": credentials.answer}

    async def show_newer_credential(self) -> None:
        """Connect anew, so that the server sees the identity's newest token.

        What is on its way is sent first; a request whose answer is not here yet fails with
        `ConnectionLostError`, as it does when a connection breaks.
        """
        if not self.client.is_connected:
            return
        self._watch.renewing = True
        try:
            await self.client.flush()
        except (nats_errors.Error, OSError) as error:
            log.debug("bus.not_flushed", error=words(error))
        await self.client.force_reconnect()

    @property
    def connected(self) -> bool:
        return self.client.is_connected

    @property
    def server(self) -> str:
        """Host and port of the server in use, never its credentials."""
        return self._watch.server

    def on_reconnected(self, callback: Reconnected) -> Callable[[], None]:
        """Have `callback` called after each reconnect; returns what takes it back."""
        return self._watch.on_reconnected(callback)

    async def wait_connected(self, timeout: float) -> None:
        """Return as soon as there is a connection.

        Raises:
            BusUnavailableError: there was none within `timeout` seconds.
        """
        if self.client.is_connected:
            return
        if self.client.is_closed:
            raise BusUnavailableError("the connection to NATS is closed")
        # The client knows before its callback tells.
        self._watch.connected.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._watch.connected.wait()
        except TimeoutError as error:
            raise BusUnavailableError("NATS is not reachable right now") from error

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
        repeatable: bool = False,
        cluster: ClusterId | None = None,
    ) -> Msg:
        """Ask and wait for one answer, `timeout` seconds at most in all.

        With `cluster`, an agent of that cluster is asked, and nobody else can answer. With
        `repeatable`, the request is sent again when the connection was lost before
        the answer came: only for what does no harm when it is carried out twice.

        Raises:
            NobodyAnswersError: nobody listens on `subject`.
            ConnectionLostError: the connection broke; it may have been carried out.
            PermissionDeniedError: the credentials do not allow to publish there.
            BusUnavailableError: no connection, or no answer in time.
            MessageTooLargeError: the server would refuse the payload.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            await self.wait_connected(deadline - loop.time())
            try:
                return await self._request(subject, payload, headers, deadline, cluster)
            except ConnectionLostError:
                if not repeatable or loop.time() >= deadline:
                    raise

    async def _request(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        deadline: float,
        cluster: ClusterId | None,
    ) -> Msg:
        with self._replies.expecting(subject, cluster) as expected:
            try:
                if cluster is not None:
                    await self._hear_agents()
                await self.publish(subject, payload, reply=expected.reply, headers=headers)
                async with asyncio.timeout_at(deadline):
                    message = await expected.answer
            except TimeoutError as error:
                raise BusUnavailableError(f"no answer on {subject} in time") from error
        if not message.data and (message.headers or {}).get("Status") == _NO_RESPONDERS:
            raise NobodyAnswersError(f"nobody answers on {subject}")
        return message

    async def _hear_agents(self) -> None:
        """Listen for agents' answers from now on; who asks no agents has no right to."""
        if self._hears_agents:
            return
        self._hears_agents = True
        try:
            answers = subjects.all_answers(self._replies.asker)
            await self.client.subscribe(answers, cb=self._replies.take)
        except (nats_errors.Error, OSError) as error:
            self._hears_agents = False
            raise ConnectionLostError(words(error)) from error

    async def api(
        self, subject: str, request: Mapping[str, Any] | None = None, *, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Ask JetStream's own API, `subject` without its `$JS.API.` in front.

        Plain JSON both ways: a newer server's fields are carried back as they came.

        Raises:
            ApiError: JetStream refused.
            BusUnavailableError: nobody answered in time, or JetStream has no leader yet.
        """
        payload = json.dumps(request).encode() if request is not None else b""
        answer = await self.request(f"$JS.API.{subject}", payload, timeout=timeout)
        body: dict[str, Any] = json.loads(answer.data)
        if error := body.get("error"):
            number, description = int(error.get("err_code", 0)), str(error.get("description", ""))
            if number in _NO_LEADER:
                raise BusUnavailableError(f"{subject}: {description}")
            raise ApiError(subject, int(error.get("code", 500)), number, description)
        return body

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send without waiting for anybody.

        Raises:
            BusUnavailableError: there is no connection.
            MessageTooLargeError: the server would refuse the payload.
        """
        if not self.client.is_connected:
            await asyncio.sleep(_NOTICE)
            raise BusUnavailableError("NATS is not reachable right now")
        try:
            await self.client.publish(
                subject, payload, reply=reply, headers=dict(headers) if headers else None
            )
        except nats_errors.MaxPayloadError as error:
            raise MessageTooLargeError(f"{len(payload)} bytes are too many for NATS") from error
        except OSError as error:
            await asyncio.sleep(_NOTICE)
            raise ConnectionLostError(f"{subject}: {error}") from error
        except nats_errors.Error as error:
            await asyncio.sleep(_NOTICE)
            raise BusUnavailableError(f"{subject}: {error}") from error

    async def flush(self) -> None:
        """Return once the server has seen everything sent so far.

        Raises:
            BusUnavailableError: it does not answer.
        """
        try:
            await self.client.flush()
        except (nats_errors.Error, OSError) as error:
            raise BusUnavailableError(str(error)) from error

    async def until_known(self) -> None:
        """Return once the server knows every subscription made so far, however long it hangs.

        A connection that breaks meanwhile takes them along to the next one.

        Raises:
            BusUnavailableError: the connection is closed for good.
        """
        while True:
            try:
                await self.client.flush()
            except (nats_errors.Error, OSError) as error:
                if self.client.is_closed:
                    raise BusUnavailableError(str(error)) from error
                log.debug("bus.not_flushed", error=words(error))
                await asyncio.sleep(_NOTICE)
            else:
                return

    async def drain(self) -> None:
        """Let handlers finish what they have received, send the rest, and close."""
        self._watch.leaving = True
        if self.client.is_closed:
            return
        try:
            await self.client.drain()
        except (nats_errors.Error, OSError):
            await self.client.close()

    async def close(self) -> None:
        self._watch.leaving = True
        if not self.client.is_closed:
            await self.client.close()
