"""An agent behind a real forward proxy that lets nothing out but HTTPS: all of its life."""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.auth.installation import Installation
from tests.support.agent_process import Agent
from tests.support.debian import UnavailableError
from tests.support.installation import make_spec
from tests.support.outbound import Outbound, only_through_a_proxy
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from streamspace_common.bus import StartAt, ensure_durable
from streamspace_common.contracts.clusters import OpenTunnel
from streamspace_common.contracts.commands import StartSession
from streamspace_common.contracts.headers import command_headers
from streamspace_common.contracts.identity import system_actor
from streamspace_common.contracts.ids import ClusterId, SessionId, new_command_id
from streamspace_common.contracts.requests import AgentMethods, AuthMethods, EnrolCluster
from streamspace_common.contracts.streams import EVENTS, agent_durable
from streamspace_common.contracts.subjects import command
from streamspace_common.testing.waiting import eventually
from streamspace_embedded import certificates

LAB = ClusterId("lab")
SESSION = SessionId("ada-null-00000001")
PATIENCE = 60


@pytest.fixture
def outbound(tmp_path: Path) -> Iterator[Outbound]:
    try:
        with only_through_a_proxy(tmp_path) as network:
            yield network
    except UnavailableError as error:
        pytest.skip(str(error))


class Relay:
    """Where tunnels are dialled back to: what came through them."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard = b""
        self.secrets: list[str | None] = []

    async def handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.secrets.append(connection.request.headers.get("Authorization"))
        await connection.send(b"are you there?")
        with suppress(ConnectionClosed):
            async for message in connection:
                assert isinstance(message, bytes)
                self.heard += message


@dataclass(frozen=True)
class Doors:
    """Where NATS and the relay listen on port 443: addresses that no other test has."""

    nats: str
    relay: str


@pytest.fixture
def doors() -> Doors:
    network = f"127.{64 + secrets.randbelow(64)}.{secrets.randbelow(256)}"
    return Doors(f"{network}.1", f"{network}.2")


@pytest.fixture
def certificate(tmp_path: Path, doors: Doors) -> tuple[Path, Path]:
    """Of an authority, and a server's of two addresses."""
    now = datetime.now(UTC)
    authority = certificates.new_authority(now)
    pair = certificates.new_server(authority, [doors.nats, doors.relay], now)
    (tmp_path / "ca.crt").write_text(authority.certificate)
    (tmp_path / "server.pem").write_text(pair.certificate + pair.key)
    return tmp_path / "ca.crt", tmp_path / "server.pem"


@pytest.fixture
async def relay(certificate: tuple[Path, Path], doors: Doors) -> AsyncIterator[Relay]:
    made = Relay(doors.relay)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate[1])
    async with serve(made.handle, made.address, 443, ssl=context, compression=None):
        yield made


@pytest.fixture
async def hub(
    bare: Installation, certificate: tuple[Path, Path], doors: Doors, outbound: Outbound
) -> Installation:
    """NATS with a second door: WebSockets by TLS, on port 443 of an address of its own."""
    pem = certificate[1]
    bare.nats.config = (
        f'websocket {{ listen: "{doors.nats}:443", '
        f'tls {{ cert_file: "{pem}", key_file: "{pem}" }} }}\n'
        f"{bare.nats.config}"
    )
    await bare.start(
        enrolment_nats_urls=f"wss://{doors.nats}:443",
        enrolment_tunnel_url=f"wss://{doors.relay}",
        enrolment_ca_file=certificate[0],
    )
    return bare


async def test_an_agent_that_only_reaches_a_proxy_does_all_of_its_work(
    hub: Installation, relay: Relay, doors: Doors, outbound: Outbound, tmp_path: Path
) -> None:
    for address in (doors.nats, doors.relay):
        assert not outbound.reaches(address, 443)
    session = await hub.connect("session")
    await ensure_durable(session, agent_durable(LAB))
    (tmp_path / "agent").mkdir(mode=0o700)
    agent = Agent(tmp_path / "agent", prefix=outbound.prefix, HTTPS_PROXY=outbound.proxy)
    agent.give(
        await hub.call(AuthMethods.ENROL_CLUSTER, EnrolCluster(principal=hub.admin, cluster_id=LAB))
    )
    await agent.start()
    try:
        await eventually(lambda: agent.said("agent ready"), timeout=PATIENCE)
        await carries_a_command_out(hub)
        await carries_bytes(hub, relay)
        # A server that restarts is found again, the same way.
        hub.nats.restart()
        await eventually(lambda: agent.said("bus.reconnected"), timeout=PATIENCE)
    finally:
        await agent.end()
    log = outbound.log.read_text()
    assert f"CONNECT {doors.nats}:443" in log
    assert f"CONNECT {doors.relay}:443" in log
    assert b"a-word" not in agent.output


async def carries_a_command_out(hub: Installation) -> None:
    session, now = await hub.connect("session"), datetime.now(UTC)
    start = StartSession(
        command_id=new_command_id(),
        session_id=SESSION,
        cluster_id=LAB,
        generation=1,
        issued_at=now,
        deadline=now + timedelta(minutes=5),
        actor=system_actor("session"),
        spec=make_spec(SESSION),
    )
    await session.publish(
        command(LAB, SESSION), start.to_json(), command_headers(start, source="session")
    )
    async with (
        asyncio.timeout(PATIENCE),
        aclosing(
            hub.gateway.tail(EVENTS.name, ["evt.lab.session.*.started"], start=StartAt.all())
        ) as events,
    ):
        assert (await anext(events)).subject == f"evt.lab.session.{SESSION}.started"


async def carries_bytes(hub: Installation, relay: Relay) -> None:
    asker = await hub.connect("vnc-proxy")
    request = OpenTunnel(
        tunnel_id="t-1",
        secret="dial-back-secret",
        dial_url=f"wss://{relay.address}/tunnels/t-1",
        session_id=SESSION,
        port=5900,
        deadline=datetime.now(UTC) + timedelta(seconds=30),
    )
    opened = await asker.call_cluster(AgentMethods.OPEN_TUNNEL, LAB, request, timeout=30)
    assert opened.tunnel_id == "t-1"
    await eventually(lambda: b"are you there?" in relay.heard, timeout=PATIENCE)
    assert relay.secrets == ["Bearer dial-back-secret"]


async def test_without_the_proxy_there_is_no_way_out(
    hub: Installation, outbound: Outbound, tmp_path: Path
) -> None:
    (tmp_path / "agent").mkdir(mode=0o700)
    agent = Agent(
        tmp_path / "agent", prefix=outbound.prefix, NO_PROXY="*", HTTPS_PROXY=outbound.proxy
    )
    agent.give(
        await hub.call(AuthMethods.ENROL_CLUSTER, EnrolCluster(principal=hub.admin, cluster_id=LAB))
    )
    await agent.start()
    try:
        await eventually(lambda: agent.said("waiting for a credential"), timeout=PATIENCE)
    finally:
        await agent.end()
    assert "CONNECT 127" not in outbound.log.read_text()
