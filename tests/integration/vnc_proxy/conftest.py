"""A real vnc-proxy on a real NATS, between a scripted control plane and scripted agents.

What is scripted: who may see what (`control`), and what an agent does when it is asked
for a tunnel (`agent`). What is real: the bus, every socket, and in the desktop tests
the RFB server.
"""

import asyncio
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
import websockets

from streamspace_common.bus import Bus
from streamspace_common.contracts.catalog import Protocol
from streamspace_common.contracts.clusters import OpenTunnel, TunnelOpened
from streamspace_common.contracts.ids import ClusterId, SessionId, UserId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    Admission,
    AdmissionState,
    AgentMethods,
    CheckAdmission,
    RedeemTicket,
    SessionMethods,
)
from streamspace_common.contracts.sessions import SessionState, ViewerRole
from streamspace_common.relay.pump import Pump
from streamspace_common.relay.stream import connect_stream
from streamspace_common.relay.websocket import connect_websocket
from streamspace_common.runtime.supervisor import Supervisor
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually
from streamspace_vnc_proxy.main import Running, start
from streamspace_vnc_proxy.settings import VncProxySettings

SESSION = SessionId("ada-desktop-0badcafe")
OWNER = UserId("usr-" + "a" * 32)
CLUSTER = ClusterId("lab")


@dataclass
class ScriptedControl:
    """The session service, as far as the relay asks it."""

    state: SessionState = SessionState.RUNNING
    allowed: bool = True
    protocol: Protocol = Protocol.VNC
    tickets: dict[str, ViewerRole] = field(default_factory=dict)

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
            session_id=SESSION, user_id=OWNER, username="ada", role=role, cluster_id=CLUSTER,
            protocol=self.protocol, port=5900,
        )

    async def check(self, request: CheckAdmission) -> AdmissionState:
        return AdmissionState(allowed=self.allowed, reason="Your access ended.", state=self.state)


@pytest_asyncio.fixture
async def control(bus: Bus) -> AsyncIterator[ScriptedControl]:
    scripted = ScriptedControl()
    served = await bus.serve(
        "session",
        {SessionMethods.REDEEM_TICKET: scripted.redeem,
         SessionMethods.CHECK_ADMISSION: scripted.check},
    )
    yield scripted
    await served.stop()


@dataclass
class ScriptedAgent:
    """An agent whose sessions all are at `target`; `on_open` replaces what it does."""

    target: str | tuple[str, int] | None = None
    on_open: Callable[[OpenTunnel], Awaitable[None]] | None = None
    requests: list[OpenTunnel] = field(default_factory=list)
    pumps: list[Pump] = field(default_factory=list)

    async def open(self, request: OpenTunnel) -> TunnelOpened:
        self.requests.append(request)
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
    async def dial(request: OpenTunnel):
        return await connect_websocket(
            request.dial_url, {"Authorization": f"Bearer {request.secret}"}
        )

    async def stop(self) -> None:
        for pump in self.pumps:
            pump.close(1000, "")
        for pump in self.pumps:
            await pump.wait_ended()
            await eventually(lambda pump=pump: pump.left.ending and pump.right.ending)


@pytest_asyncio.fixture
async def agent(bus: Bus) -> AsyncIterator[ScriptedAgent]:
    scripted = ScriptedAgent()
    served = await bus.serve_cluster(CLUSTER, {AgentMethods.OPEN_TUNNEL: scripted.open})
    yield scripted
    await scripted.stop()
    await served.stop()


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
        **options: object,
    ) -> websockets.connect:
        """A browser's WebSocket to a session, with a fresh ticket if none is given."""
        ticket = ticket or self.control.ticket(role)
        return websockets.connect(
            f"{self.url}/streams/{session}",
            subprotocols=["binary", f"streamspace.ticket.{ticket}"],
            compression=None,
            **options,
        )


ProxyFactory = Callable[..., Awaitable[Proxy]]


@pytest_asyncio.fixture
async def start_proxy(
    bus: Bus, nats_server: NatsServer, control: ScriptedControl
) -> AsyncIterator[ProxyFactory]:
    """Starts proxies with the settings given; they end with the test."""
    started: list[tuple[Supervisor, asyncio.Task[None]]] = []

    async def factory(**settings: object) -> Proxy:
        # The tunnel address must name the port, so the port is taken beforehand.
        port = settings.pop("listen_port", None) or _free_port()
        defaults: dict[str, object] = {
            "nats_url": nats_server.url, "listen_port": port,
            "tunnel_url": f"ws://127.0.0.1:{port}", "open_timeout": 5.0,
        }
        supervisor = Supervisor("vnc-proxy", drain_timeout=10)
        running = await start(VncProxySettings(**(defaults | settings)), supervisor)
        started.append((supervisor, asyncio.create_task(supervisor.run())))
        return Proxy(running, supervisor, control)

    yield factory
    for supervisor, task in started:
        supervisor.stop()
        await task


def _free_port() -> int:
    from streamspace_common.testing.nats import free_port

    return free_port()


@pytest_asyncio.fixture
async def proxy(start_proxy: ProxyFactory, agent: ScriptedAgent) -> Proxy:
    return await start_proxy()


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


@pytest_asyncio.fixture
async def desktop(agent: ScriptedAgent) -> AsyncIterator[Desktop]:
    made = Desktop()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    agent.target = ("127.0.0.1", made.port)
    yield made
    made.flood = False
    made.hang_up()
    server.close()
    await server.wait_closed()


@pytest.fixture
def xvnc(tmp_path: Path) -> Iterator[Path]:
    """A real desktop: the socket of an Xvnc of this test's own."""
    program = shutil.which("Xvnc")
    if program is None:
        pytest.skip("Xvnc is not installed (Debian: tigervnc-standalone-server)")
    socket = tmp_path / "rfb.sock"
    reading, writing = _pipe()
    process = subprocess.Popen(
        [program, "-displayfd", str(writing), "-geometry", "320x200", "-depth", "24",
         "-SecurityTypes", "None", "-rfbport", "-1", "-rfbunixpath", str(socket),
         "-rfbunixmode", "0600", "-nolisten", "tcp", "-AlwaysShared", "-AcceptSetDesktopSize"],
        pass_fds=(writing,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    import os

    os.close(writing)
    with os.fdopen(reading) as ready:
        assert ready.readline().strip().isdigit(), "Xvnc did not start"
    yield socket
    process.terminate()
    process.wait(timeout=10)


def _pipe() -> tuple[int, int]:
    import os

    return os.pipe()
