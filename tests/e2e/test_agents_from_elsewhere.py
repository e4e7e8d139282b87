"""An installation of `up` that lets agents of other machines in, and such an agent: in a network
that only a forward proxy leads out of, which lets through nothing but HTTPS to port 443.
"""

import asyncio
import json
import re
import secrets
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import websockets
from tests.support.agent_process import Agent
from tests.support.debian import UnavailableError
from tests.support.outbound import Outbound, only_through_a_proxy
from tests.support.rfb import RfbClient
from tests.support.stack import (
    ADMIN_PASSWORD,
    FINAL,
    Api,
    Stack,
    end,
    launch,
    patiently,
    sign_in,
    wait_until_ready,
)

from streamspace_common.bus import Bus
from streamspace_common.bus.credentials import Trust, service_credentials
from streamspace_common.bus.errors import BusUnavailableError, CredentialRefusedError
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.testing.waiting import eventually
from streamspace_embedded import certificates

PATIENCE = 60
NewAgent = Callable[..., Agent]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def host() -> str:
    """An address that no other test has, so that port 443 is free there."""
    return f"127.{128 + secrets.randbelow(64)}.{secrets.randbelow(256)}.1"


@pytest.fixture(scope="module")
def hub(host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = launch(
        tmp_path_factory.mktemp("hub") / "data",
        options=["--agents-host", host, "--agents-port", "443", "--agents-listen", host],
    )
    try:
        asyncio.run(wait_until_ready(running, 240))
        yield running
    finally:
        end(running)


@pytest.fixture
async def admin(hub: Stack) -> AsyncIterator[Api]:
    async with httpx2.AsyncClient(base_url=hub.url, timeout=30, trust_env=False) as client:
        yield await sign_in(client, "admin", ADMIN_PASSWORD)


@pytest.fixture
def outbound(tmp_path: Path) -> Iterator[Outbound]:
    try:
        with only_through_a_proxy(tmp_path) as network:
            yield network
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
async def new_agent(tmp_path: Path) -> AsyncIterator[NewAgent]:
    """Agents with an enrolment; they end with the test."""
    made: list[Agent] = []

    def make(enrolment: Enrolment, **more: Any) -> Agent:
        folder = tmp_path / f"agent-{len(made)}"
        folder.mkdir(mode=0o700)
        made.append(Agent(folder, **more))
        made[-1].give(enrolment)
        return made[-1]

    yield make
    for agent in made:
        await agent.end()


async def enrol(admin: Api, cluster: str) -> Enrolment:
    answer = await admin.post("/clusters", json={"id": cluster})
    assert answer.status_code == 201, answer.text
    return Enrolment.from_json(answer.content)


def trusting(enrolment: Enrolment) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=enrolment.certificate_authorities)


@pytest.mark.skipif(shutil.which("Xvnc") is None, reason="Xvnc is not installed")
async def test_an_agent_that_gets_out_to_port_443_only_shows_desktops_with_one_file(
    hub: Stack, host: str, admin: Api, outbound: Outbound, new_agent: NewAgent
) -> None:
    assert not outbound.reaches(host, 443)
    agent = new_agent(
        await enrol(admin, "east"),
        prefix=outbound.prefix,
        HTTPS_PROXY=outbound.proxy,
        STREAMSPACE_AGENT_RUNTIME="process",
        STREAMSPACE_AGENT_ON_EXIT="stop",
    )
    await agent.start()
    await eventually(lambda: agent.said("agent ready"), timeout=PATIENCE)
    # Both at once: those of elsewhere, and those on the control plane's own machine.
    for cluster in ("east", "local"):
        session = await admin.launch("starter_terminal", clusterId=cluster)
        running = await admin.wait_for(session["id"], "running", seconds=PATIENCE)
        assert running["clusterId"] == cluster
        await sees_a_desktop(admin, session["id"])
        assert (await admin.delete(session["id"])).status_code == 202
        await admin.wait_for(session["id"], *FINAL)
    asked = set(re.findall(r"CONNECT (\S+:\d+)", outbound.log.read_text()))
    assert asked == {f"{host}:443"}


async def sees_a_desktop(user: Api, session_id: str) -> None:
    answer = await user.post(f"/sessions/{session_id}/connect", json={"role": "control"})
    assert answer.status_code == 200, answer.text
    ticket = answer.json()
    async with websockets.connect(
        ticket["url"], subprotocols=ticket["protocols"], compression=None, max_size=None
    ) as connection:
        client = RfbClient(connection, patience=30)
        await client.connect()
        await client.see_all()
        assert len(client.colours) > 1


async def test_it_comes_back_after_the_ingress_and_after_nats(
    hub: Stack, admin: Api, new_agent: NewAgent
) -> None:
    agent = new_agent(await enrol(admin, "steady"))
    await agent.start()
    await eventually(lambda: agent.said("agent ready"), timeout=PATIENCE)

    async def is_online() -> bool:
        return (await admin.get("/clusters/steady")).json()["presence"] == "online"

    # Nothing is placed where no agent was ever heard.
    await eventually(is_online, timeout=PATIENCE)
    for times, killed in enumerate(("agent-ingress", "nats"), start=1):
        hub.kill(killed)
        await eventually(
            lambda times=times: agent.said("bus.reconnected") >= times, timeout=PATIENCE
        )
    # The session service has lost NATS too, and says so until it is back.
    wanted = {"template": "starter_terminal", "clusterId": "steady"}
    session = (await patiently(lambda: admin.post("/sessions", json=wanted))).json()["session"]
    await admin.wait_for(session["id"], "running", seconds=PATIENCE)
    assert (await admin.delete(session["id"])).status_code == 202
    await admin.wait_for(session["id"], *FINAL)


async def test_an_agent_refuses_a_server_that_its_enrolment_does_not_vouch_for(
    admin: Api, new_agent: NewAgent
) -> None:
    enrolment = await enrol(admin, "misled")
    stranger = certificates.new_authority(datetime.now(UTC)).certificate
    agent = new_agent(enrolment.model_copy(update={"certificate_authorities": stranger}))
    await agent.start()
    await eventually(
        lambda: b"certificate verify failed" in agent.output,
        timeout=PATIENCE,
        message=agent.output.decode(),
    )
    assert not agent.said("agent ready")


async def test_who_has_no_credential_gets_nothing_of_the_bus(
    host: str, hub: Stack, admin: Api, tmp_path: Path
) -> None:
    (url,) = (await enrol(admin, "nobody")).nats_urls
    stranger = tmp_path / "stranger.creds"
    stranger.write_text(service_credentials(Trust.new().services, "gateway"))
    for credentials in (None, stranger):
        with pytest.raises((CredentialRefusedError, BusUnavailableError)) as refused:
            await Bus.connect(
                url,
                name="stranger",
                credentials=credentials,
                ca_file=hub.data / "secrets" / "ca.crt",
                patience=10,
            )
        assert "authorization" in str(refused.value).lower()


async def test_plain_text_is_not_spoken_at_the_agents_port(host: str, hub: Stack) -> None:
    def answer_to(said: bytes) -> bytes:
        with socket.create_connection((host, 443), 10) as connection:
            connection.sendall(said)
            connection.settimeout(10)
            heard = b""
            try:
                while piece := connection.recv(4096):
                    heard += piece
            except ConnectionResetError:
                pass
            return heard

    upgrade = b"GET /bus HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    for said in (upgrade, b"CONNECT {}\r\nPING\r\n"):
        heard = await asyncio.to_thread(answer_to, said)
        # At the most an alert of TLS (RFC 8446 6), which begins with 21.
        assert not heard or heard[0] == 21, heard
        assert b"INFO" not in heard
        assert b"HTTP" not in heard


async def test_nothing_but_the_agents_two_paths_is_there(host: str, hub: Stack, admin: Api) -> None:
    enrolment = await enrol(admin, "curious")
    async with httpx2.AsyncClient(
        base_url=f"https://{host}", verify=trusting(enrolment), trust_env=False
    ) as client:
        for path in ("/", "/api/v1/sessions", "/streams/any-one", "/metrics", "/varz", "/healthz"):
            assert (await client.get(path)).status_code == 404, path
        # A session's own web page is asked for by its host, at any path.
        answer = await client.get("/tunnels/x", headers={"Host": "some-session.localhost"})
        assert answer.status_code == 426


def test_all_else_listens_on_this_machine_only(host: str, hub: Stack) -> None:
    state = hub.state()["processes"]
    found = {name: listening(pid) for name, pid in state.items()}
    assert found["agent-ingress"] - {"127.0.0.1"} == {host}
    for name, addresses in found.items():
        if name != "agent-ingress":
            assert addresses <= {"127.0.0.1"}, name
    assert found["nats"] == {"127.0.0.1"}


def listening(pid: int) -> set[str]:
    """The addresses where a process takes TCP connections."""
    sockets = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(str(handle.readlink()))
        except FileNotFoundError:
            continue
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(_address(fields[1].split(":")[0], family))
    return found


def _address(hexadecimal: str, family: socket.AddressFamily) -> str:
    """As /proc writes it: words of the machine's own byte order."""
    words = (hexadecimal[place : place + 8] for place in range(0, len(hexadecimal), 8))
    return socket.inet_ntop(family, b"".join(bytes.fromhex(word)[::-1] for word in words))


def test_the_agent_of_its_own_machine_needs_no_name_and_no_certificate(hub: Stack) -> None:
    enrolment = json.loads((hub.data / "secrets" / "agent-local.json").read_text())
    assert all(url.startswith("nats://127.0.0.1:") for url in enrolment["natsUrls"])
    assert enrolment["tunnelUrl"].startswith("ws://127.0.0.1:")
