"""Who stands around the relay in these tests: a control plane, an agent and a desktop, all
scripted, and the relay with a browser's way in."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import websockets
from websockets.typing import Subprotocol

from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.clusters import OpenTunnel, TunnelOpened
from streamspace_common.contracts.ids import ClusterId, SessionId, UserId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    Admission,
    AdmissionState,
    CheckAdmission,
    RedeemTicket,
)
from streamspace_common.contracts.sessions import SessionState, ViewerRole
from streamspace_common.relay.pump import Pump
from streamspace_common.relay.stream import connect_stream
from streamspace_common.relay.websocket import WebSocketLeg, connect_websocket
from streamspace_common.runtime.supervisor import Supervisor
from streamspace_common.runtime.tracing import current_traceparent, trace_id_of
from streamspace_common.testing.waiting import eventually
from streamspace_vnc_proxy.main import Running

SESSION = SessionId("ada-desktop-0badcafe")
OWNER = UserId("usr-" + "a" * 32)
CLUSTER = ClusterId("lab")
GREETING = b"RFB 003.008\n"
HELLO = b"RFB 003.008\n\x01\x01"
KEY = bytes([4, 1, 0, 0, 0, 0, 0, 0x61])
UPDATE = bytes([3, 1, 0, 0, 0, 0, 5, 0, 3, 32])


def offer(ticket: str | None = None) -> list[Subprotocol]:
    """The subprotocols a browser offers."""
    names = ["binary"] if ticket is None else ["binary", f"streamspace.ticket.{ticket}"]
    return [Subprotocol(name) for name in names]


async def closing(socket: websockets.ClientConnection) -> tuple[int, str]:
    """The code and reason the relay closes with."""
    try:
        async with asyncio.timeout(15):
            while True:
                await socket.recv()
    except websockets.ConnectionClosed as error:
        assert error.rcvd is not None, "closed without a word"
        return error.rcvd.code, error.rcvd.reason


async def read(socket: websockets.ClientConnection, size: int) -> bytes:
    data = b""
    async with asyncio.timeout(10):
        while len(data) < size:
            piece = await socket.recv()
            assert isinstance(piece, bytes)
            data += piece
    return data


@dataclass
class ScriptedControl:
    """The session service, as far as the relay asks it."""

    state: SessionState = SessionState.RUNNING
    allowed: bool = True
    protocol: Protocol = Protocol.VNC
    tickets: dict[str, ViewerRole] = field(default_factory=dict)
    traceparent: str | None = None
    """Of the request that asked for the tickets."""

    def ticket(self, role: ViewerRole = ViewerRole.CONTROL) -> str:
        """A new ticket for the one session there is."""
        ticket = secrets.token_urlsafe(16)
        self.tickets[ticket] = role
        return ticket

    async def redeem(self, request: RedeemTicket) -> Admission:
        role = self.tickets.pop(request.ticket.get_secret_value(), None)
        if role is None or request.session_id != SESSION:
            raise ProblemError.of(Code.TICKET_REFUSED, "The ticket is unknown or was used.")
        if self.state is not SessionState.RUNNING:
            raise ProblemError.of(Code.WRONG_STATE, f"The session is {self.state}.")
        return Admission(
            session_id=SESSION,
            user_id=OWNER,
            username="ada",
            role=role,
            cluster_id=CLUSTER,
            protocol=self.protocol,
            port=5900,
            traceparent=self.traceparent,
        )

    async def check(self, request: CheckAdmission) -> AdmissionState:
        return AdmissionState(allowed=self.allowed, reason="Your access ended.", state=self.state)


@dataclass
class ScriptedAgent:
    """An agent whose sessions all are at `target`; `on_open` replaces what it does."""

    target: str | tuple[str, int] | None = None
    on_open: Callable[[OpenTunnel], Awaitable[None]] | None = None
    requests: list[OpenTunnel] = field(default_factory=list)
    traces: list[str | None] = field(default_factory=list)
    """The trace each request belonged to."""
    pumps: list[Pump] = field(default_factory=list)

    async def open(self, request: OpenTunnel) -> TunnelOpened:
        self.requests.append(request)
        self.traces.append(trace_id_of(current_traceparent()))
        await (self.on_open or self.connect)(request)
        return TunnelOpened(tunnel_id=request.tunnel_id, instance="scripted")

    async def connect(self, request: OpenTunnel) -> None:
        assert self.target is not None
        try:
            session = await connect_stream(self.target)
        except OSError as error:
            raise ProblemError.of(Code.SESSION_UNREACHABLE, "The desktop is not there.") from error
        tunnel = await self.dial(request)
        self.pumps.append(Pump(tunnel, session))

    @staticmethod
    async def dial(request: OpenTunnel) -> WebSocketLeg:
        return await connect_websocket(
            request.dial_url, {"Authorization": f"Bearer {request.secret}"}
        )

    async def stop(self) -> None:
        for pump in self.pumps:
            pump.close(1000, "")
        for pump in self.pumps:
            await pump.wait_ended()
        await eventually(lambda: all(pump.left.ending and pump.right.ending for pump in self.pumps))


@dataclass
class Proxy:
    running: Running
    supervisor: Supervisor
    control: ScriptedControl

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.running.port}"

    @property
    def health(self) -> str:
        return f"http://127.0.0.1:{self.running.health_port}"

    def view(
        self,
        ticket: str | None = None,
        *,
        role: ViewerRole = ViewerRole.CONTROL,
        session: str = SESSION,
        **options: Any,
    ) -> websockets.connect:
        """A browser's WebSocket to a session, with a fresh ticket if none is given."""
        ticket = ticket or self.control.ticket(role)
        return websockets.connect(
            f"{self.url}/streams/{session}",
            subprotocols=offer(ticket),
            compression=None,
            **options,
        )


ProxyFactory = Callable[..., Awaitable[Proxy]]


@dataclass
class Desktop:
    """A server that greets and echoes, and keeps all it was told."""

    port: int = 0
    heard: bytearray = field(default_factory=bytearray)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    greeting: bytes = b"RFB 003.008\n"
    flood: bool = False
    closed: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            writer.write(self.greeting)
            while self.flood:
                writer.write(bytes(65536))
                await writer.drain()
            while data := await reader.read(65536):
                self.heard += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.closed += 1
            writer.close()

    def hang_up(self) -> None:
        for writer in self.connections:
            writer.transport.abort()
