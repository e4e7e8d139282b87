"""The data port: takes connections, reads the head of the one request each may make,
and hands the connection on.

An upgrade goes to picows with a leg of ours behind it; a dial-back for another replica
goes, bytes and all, to that replica; everything else gets a small answer and is closed.
Heads are bounded in size and time, so that a connection that says nothing costs little
and not for long.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import aiofastnet
from picows import WSTransport

from streamspace_common.contracts.problems import Code, Problem
from streamspace_common.relay.pump import tune
from streamspace_common.relay.websocket import WebSocketLeg, accept_websocket
from streamspace_common.web.serving import listen
from streamspace_vnc_proxy import http_head
from streamspace_vnc_proxy.http_head import BadRequestError, RequestHead

HEAD_TIMEOUT = 10.0
"""Seconds a connection may take for the head of its request."""
LINGER = 1.0
"""Seconds a client has to close after it was answered."""
MAX_SILENT = 2000
"""Connections that have not said what they want yet; more are closed at once."""


class ServedLeg(WebSocketLeg):
    """The server's end of a WebSocket; tells when it can be written to."""

    def __init__(self, on_connected: Callable[["ServedLeg"], None], *, early_limit: int) -> None:
        super().__init__(early_limit=early_limit)
        self._on_connected = on_connected

    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        self._on_connected(self)


@dataclass(frozen=True)
class Answer:
    """A small HTTP answer, after which the connection is closed."""

    status: int
    body: bytes
    content_type: str = "application/problem+json"

    @classmethod
    def problem(cls, status: int, detail: str, code: Code = Code.INVALID_REQUEST) -> "Answer":
        problem = Problem.of(code, detail).model_copy(
            update={"status": status, "title": HTTPStatus(status).phrase}
        )
        return cls(status, problem.to_json())

    def to_bytes(self) -> bytes:
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            "Cache-Control: no-store\r\n"
            "X-Content-Type-Options: nosniff\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + self.body


@dataclass(frozen=True)
class Upgrade:
    """The connection becomes a WebSocket with `leg` behind it."""

    leg: WebSocketLeg
    subprotocol: str | None = None


@dataclass(frozen=True)
class HandOver:
    """The connection is taken over: called with it and with what was read of it so far."""

    take: Callable[[asyncio.Transport, bytes], None]


Outcome = Answer | Upgrade | HandOver
Route = Callable[[RequestHead, str], Outcome]
"""Decides from the head and the connection's address."""


class Front(asyncio.BufferedProtocol):
    """What each connection meets first."""

    def __init__(self, route: Route, silent: "set[Front]") -> None:
        self._route = route
        self._silent = silent
        self._buffer = bytearray(http_head.MAX_HEAD)
        self._filled = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._silent) >= MAX_SILENT:
            self._transport.abort()
            return
        tune(transport)
        self._silent.add(self)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HEAD_TIMEOUT, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()
        self._transport = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._answered:
            return  # what still comes is read and forgotten
        searched = max(0, self._filled - len(http_head.END))
        self._filled += nbytes
        end = self._buffer.find(http_head.END, searched, self._filled)
        if end >= 0:
            size = end + len(http_head.END)
            head, rest = bytes(self._buffer[:size]), bytes(self._buffer[size : self._filled])
            self._act(head, rest)
        elif self._filled == len(self._buffer):
            self._answer(Answer.problem(431, "The request's headers are too large."))

    def _act(self, raw: bytes, rest: bytes) -> None:
        assert self._transport is not None  # noqa: S101 - data comes from a connection
        peer = self._transport.get_extra_info("peername")
        try:
            head = http_head.parse(raw)
            outcome = self._route(head, peer[0] if peer else "")
        except BadRequestError as error:
            outcome = Answer.problem(error.status, error.detail)
        match outcome:
            case Answer():
                self._answer(outcome)
            case Upgrade():
                self._done()
                accept_websocket(
                    self._transport, outcome.leg, raw + rest, subprotocol=outcome.subprotocol
                )
            case HandOver():
                self._done()
                outcome.take(self._transport, raw + rest)

    def _answer(self, answer: Answer) -> None:
        """Answer, and linger: a close with unread data would cost the client the answer."""
        self._done()
        if self._transport is None or self._answered:
            return
        self._answered = True
        self._transport.write(answer.to_bytes())
        if self._transport.can_write_eof():  # not within TLS
            self._transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(LINGER, self.shut)

    def _too_slow(self) -> None:
        self._answer(Answer.problem(408, "The request did not come in time."))

    def shut(self) -> None:
        """End a connection that has not said what it wants."""
        self._done()
        if self._transport is not None:
            self._transport.abort()

    def _done(self) -> None:
        self._silent.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """Answers are smaller than any write buffer."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""


class DataPort:
    """The listening socket and the connections that have not said what they want."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._silent: set[Front] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def listening(self) -> bool:
        return self._server is not None

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Listen; `port` then tells where. With `tls` nothing else is spoken there.

        Raises:
            FatalError: the port is taken, or may not be used.
        """
        socket = listen(host, port)
        self.port = socket.getsockname()[1]
        self._server = await aiofastnet.create_server(
            asyncio.get_running_loop(),
            lambda: Front(self._route, self._silent),
            sock=socket,
            backlog=2048,
            ssl=tls,
            ssl_handshake_timeout=HEAD_TIMEOUT if tls is not None else None,
        )

    async def close(self) -> None:
        """Take no more connections. Those that were handed on live on."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for front in list(self._silent):
            front.shut()
