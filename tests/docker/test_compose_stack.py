"""docker-compose.yml as it is, brought up whole on a real engine, used, and taken down.

Only what a test must say otherwise stands in an override: free ports, names of its own, and
a catalog with the tests' own desktop, as there may be no way to a registry here.
"""

import asyncio
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import websockets
import yaml
from dulwich import porcelain
from tests.support import base_images, compose
from tests.support.built_images import REPOSITORY, compose_services
from tests.support.debian import UnavailableError
from tests.support.engine import Engine, EngineError
from tests.support.stack import ADMIN_PASSWORD, Api, patiently, sign_in
from tests.support.web_session import Address, connect

from streamspace_embedded.ports import free_port

TEMPLATE = """
apiVersion: stream.space/v1alpha1
kind: Template
metadata:
  name: test-desktop
spec:
  displayName: Test desktop
  baseImage: {image}
  defaultResources: {{cpu: 500m, memory: 512Mi}}
  ports: [{{name: vnc, containerPort: 5900}}]
  volumeMounts: [{{name: user-home, mountPath: /home/session}}]
  vnc: {{enabled: true, port: 5900}}
"""


@dataclass
class Composed:
    """A running compose project, and how this machine reaches it."""

    engine: Engine
    command: list[str]
    environment: dict[str, str]
    prefix: str
    url: str
    stream_port: int

    def compose(self, *arguments: str, timeout: float = 600) -> str:
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            words = "\n".join(done.stderr.strip().splitlines()[-25:])
            raise EngineError(f"compose {' '.join(arguments)}: {words}")
        return done.stdout

    def containers(self) -> list[dict[str, Any]]:
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        return [json.loads(line) for line in lines]

    def desktops(self) -> list[str]:
        return self.engine.docker(
            "ps", "--all", "--format", "{{.Names}}",
            "--filter", f"label=stream.space/installation={self.prefix}",
        ).split()  # fmt: skip


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, session_image: str) -> Path:
    """A git repository with one template, which any user may read."""
    folder = tmp_path_factory.mktemp("catalog")
    (folder / "desktop.yaml").write_text(TEMPLATE.format(image=session_image))
    porcelain.init(str(folder))
    porcelain.add(str(folder), [str(folder / "desktop.yaml")])
    porcelain.commit(str(folder), message=b"One desktop", author=b"T <t@t>", committer=b"T <t@t>")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture(scope="module")
def composed(
    engine: Engine,
    built: None,
    catalog: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Composed]:
    try:
        base_images.provide(engine, "nats", "postgres")
        program = compose.command()
    except UnavailableError as error:
        pytest.skip(str(error))
    project = f"test{secrets.token_hex(4)}"
    socket = Path(engine.url.removeprefix("unix://"))
    ports = {name: free_port() for name in ("PORT", "STREAM_PORT", "NATS_PORT", "AGENT_PORT")}
    override = tmp_path_factory.mktemp("compose") / "override.yml"
    override.write_text(
        yaml.safe_dump(
            {
                "services": {
                    "agent": {"environment": {"STREAMSPACE_AGENT_DOCKER_PREFIX": project}},
                    "catalog-sync": {
                        "environment": {"STREAMSPACE_CATALOG_SYNC_LOCAL_PATHS": "true"},
                        "volumes": [f"{catalog}:/catalog:ro"],
                    },
                },
                "networks": {"default": {"name": project}},
            }
        )
    )
    stack = Composed(
        engine,
        [
            *program,
            "-p",
            project,
            "-f",
            str(REPOSITORY / "docker-compose.yml"),
            "-f",
            str(override),
        ],
        {
            **os.environ,
            "DOCKER_HOST": engine.url,
            "DOCKER_SOCKET": str(socket),
            "DOCKER_GROUP": str(socket.stat().st_gid),
            "STREAMSPACE_ADMIN_PASSWORD": ADMIN_PASSWORD,
            **{name: str(port) for name, port in ports.items()},
        },
        project,
        "",
        0,
    )
    with ExitStack() as ways:
        try:
            stack.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "300")
            stack.url = f"http://127.0.0.1:{ways.enter_context(engine.published(ports['PORT']))}"
            stack.stream_port = ways.enter_context(engine.published(ports["STREAM_PORT"]))
            yield stack
        except EngineError as error:
            raise AssertionError(f"{error}\n{stack.compose('logs', '--tail', '12')}") from error
        finally:
            ways.close()
            for name in stack.desktops():
                engine.docker("rm", "--force", name)
            stack.compose("down", "--volumes", "--timeout", "5")


@pytest.fixture
async def admin(composed: Composed) -> AsyncIterator[Api]:
    async with httpx2.AsyncClient(base_url=composed.url, timeout=30, trust_env=False) as client:
        yield await sign_in(client, "admin", ADMIN_PASSWORD)


async def test_everything_is_up_and_says_that_it_is_healthy(composed: Composed) -> None:
    states = {each["Service"]: each for each in composed.containers()}
    assert set(states) == set(compose_services())
    for name, each in states.items():
        if name in {"secrets", "databases", "desktop"}:
            assert (each["State"], each["ExitCode"]) == ("exited", 0), name
        else:
            assert (each["State"], each["Health"]) == ("running", "healthy"), name


async def test_a_session_from_start_to_pixels_to_nothing(
    composed: Composed, admin: Api, session_image: str
) -> None:
    template = await the_template(admin)
    session = await admin.launch(template)
    running = await admin.wait_for(session["id"], "running", seconds=90)
    assert running["clusterId"] == "local"
    assert composed.desktops() == [f"{composed.prefix}-{session['id']}.1"]

    answer = await admin.post(f"/sessions/{session['id']}/connect", json={"role": "control"})
    assert answer.status_code == 200, answer.text
    width, height, pixels = await first_picture(answer.json(), composed.stream_port)
    assert (width, height) == (1024, 768)
    assert len(set(pixels)) > 1  # a desktop, not a blank

    answer = await admin.post(f"/sessions/{session['id']}/hibernate")
    assert answer.status_code == 202, answer.text
    await admin.wait_for(session["id"], "hibernated", seconds=60)
    assert composed.desktops() == []
    answer = await admin.post(f"/sessions/{session['id']}/wake")
    assert answer.status_code == 202, answer.text
    await admin.wait_for(session["id"], "running", seconds=60)

    assert (await admin.delete(session["id"])).status_code == 202
    await admin.wait_for(session["id"], "terminated", seconds=60)
    assert composed.desktops() == []


@pytest.mark.parametrize("template", ["starter_desktop", "starter_terminal"])
async def test_the_starter_catalog_opens_from_our_own_image(
    composed: Composed, admin: Api, template: str
) -> None:
    session = await admin.launch(template)
    await admin.wait_for(session["id"], "running", seconds=90)
    answer = await admin.post(f"/sessions/{session['id']}/connect", json={"role": "control"})
    assert answer.status_code == 200, answer.text
    assert (await first_picture(answer.json(), composed.stream_port))[:2] == (1280, 800)
    (desktop,) = composed.desktops()
    said = composed.engine.docker("exec", desktop, "sh", "-c", "id -u; ps -C tint2 -o comm=; true")
    assert said.split() == ["1000", *(["tint2"] if template == "starter_desktop" else [])]
    composed.engine.docker("exec", desktop, "sh", "-c", "echo kept > $HOME/kept.txt")
    assert (await admin.delete(session["id"])).status_code == 202
    await admin.wait_for(session["id"], "terminated", seconds=60)


async def test_the_starter_catalogs_files_are_browsed_in_a_container(
    composed: Composed, admin: Api
) -> None:
    session = await admin.launch("starter_files")
    await admin.wait_for(session["id"], "running", seconds=90)
    (container,) = composed.desktops()
    composed.engine.docker("exec", container, "sh", "-c", "echo mine > $HOME/mine.txt")
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as outside:
        ticket = await connect(admin, session["id"])
        address = Address(outside, ticket["url"], port=composed.stream_port)
        origin = f"http://localhost:{composed.environment['PORT']}"
        assert (await address.enter(ticket["ticket"], origin)).status_code == 303
        assert (await address.get("/mine.txt")).text == "mine\n"
    assert (await admin.delete(session["id"])).status_code == 202
    await admin.wait_for(session["id"], "terminated", seconds=60)


async def test_a_desktop_outlives_a_restart_of_its_agent(composed: Composed, admin: Api) -> None:
    session = await admin.launch(await the_template(admin))
    await admin.wait_for(session["id"], "running", seconds=90)
    (desktop,) = composed.desktops()
    began = composed.engine.inspect(desktop)["State"]["StartedAt"]
    composed.compose("restart", "agent")
    composed.compose("up", "--detach", "--no-build", "--wait", "agent")

    answer = await admin.post(f"/sessions/{session['id']}/connect", json={"role": "control"})
    await first_picture(answer.json(), composed.stream_port)
    assert composed.engine.inspect(desktop)["State"]["StartedAt"] == began
    assert (await admin.delete(session["id"])).status_code == 202
    await admin.wait_for(session["id"], "terminated", seconds=60)


async def test_a_session_reaches_none_of_the_control_plane(composed: Composed, admin: Api) -> None:
    session = await admin.launch(await the_template(admin))
    await admin.wait_for(session["id"], "running", seconds=90)
    (desktop,) = composed.desktops()
    targets = [("postgres", 5432), ("nats", 4222), ("gateway", 8080), ("vnc-proxy", 8081)]
    for name, port in targets:
        container = composed.compose("ps", "--quiet", name).strip()
        networks = composed.engine.inspect(container)["NetworkSettings"]["Networks"]
        address = networks[composed.prefix]["IPAddress"]
        tried = f"timeout 2 bash -c '< /dev/tcp/{address}/{port}' && echo reached || echo refused"
        assert composed.engine.docker("exec", desktop, "sh", "-c", tried) == "refused", name
    assert (await admin.delete(session["id"])).status_code == 202
    await admin.wait_for(session["id"], "terminated", seconds=60)


async def test_agents_of_other_machines_are_let_in_with_one_more_file(
    composed: Composed, admin: Api
) -> None:
    """The address is this engine's own; the way is the one from elsewhere, TLS included."""
    port, name = free_port(), f"{composed.prefix}-elsewhere"
    more = replace(
        composed,
        command=[*composed.command, "-f", str(REPOSITORY / "docker-compose.agents.yml")],
        environment={**composed.environment, "AGENTS_HOST": "127.0.0.1", "AGENTS_PORT": str(port)},
    )
    try:
        more.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "300")
        enrolment = (
            await patiently(
                lambda: admin.post("/clusters", json={"id": "elsewhere"}), accepted=(201,)
            )
        ).json()
        assert enrolment["natsUrls"] == [f"wss://127.0.0.1:{port}/bus"]
        composed.engine.docker(
            "run", "--detach", "--name", name, "--network", "host", "--read-only", "--volume", "/state",
            "--env", "STREAMSPACE_AGENT_RUNTIME=null", "--env", "STREAMSPACE_AGENT_ENROLMENT",
            "--env", "STREAMSPACE_HEALTH_PORT=0", "streamspace/agent:0.1.0",
            environment={"STREAMSPACE_AGENT_ENROLMENT": json.dumps(enrolment)},
        )  # fmt: skip
        template = await the_template(admin)
        for cluster in ("elsewhere", "local"):
            await online(admin, cluster)
            session = await admin.launch(template, clusterId=cluster)
            await admin.wait_for(session["id"], "running", seconds=90)
            answer = await admin.post(
                f"/sessions/{session['id']}/connect", json={"role": "control"}
            )
            assert answer.status_code == 200, answer.text
            if cluster == "local":
                await first_picture(answer.json(), composed.stream_port)
            else:
                await echoes(answer.json(), composed.stream_port)
            assert (await admin.delete(session["id"])).status_code == 202
            await admin.wait_for(session["id"], "terminated", seconds=60)
    except (AssertionError, TimeoutError) as error:
        said = logs(composed.engine, name)
        raise AssertionError(f"{error}\n{said}\n{more.compose('logs', '--tail', '12')}") from error
    finally:
        composed.engine.docker("rm", "--force", "--volumes", name)
        composed.compose(
            "up", "--detach", "--no-build", "--remove-orphans", "--wait", "--wait-timeout", "300"
        )
        # Or other tests' sessions would be placed there until its silence is noticed.
        await patiently(lambda: admin.post("/clusters/elsewhere/revoke"), accepted=(200, 204, 404))
        await patiently(
            lambda: admin.request("DELETE", "/clusters/elsewhere?endSessions=true"),
            accepted=(200, 404),
        )


def logs(engine: Engine, container: str) -> str:
    done = subprocess.run(
        ["docker", "logs", "--tail", "12", container],
        env={**os.environ, "DOCKER_HOST": engine.url},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.stdout


async def online(admin: Api, cluster: str) -> None:
    async with asyncio.timeout(90):
        while True:
            answer = await admin.get(f"/clusters/{cluster}")
            if answer.status_code == 200 and answer.json()["presence"] == "online":
                return
            await asyncio.sleep(0.2)


async def echoes(ticket: dict[str, Any], stream_port: int) -> None:
    """Connect as a viewer does to a session of the null runtime."""
    url = urlsplit(ticket["url"])._replace(netloc=f"127.0.0.1:{stream_port}").geturl()
    async with (
        asyncio.timeout(30),
        websockets.connect(url, subprotocols=ticket["protocols"], compression=None) as viewer,
    ):
        await viewer.send(b"RFB 003.008\n")
        heard = b""
        while b"RFB 003.008\n" not in heard:
            piece = await viewer.recv()
            assert isinstance(piece, bytes)
            heard += piece


async def test_the_passwords_shown_once_are_the_ones_that_were_given(composed: Composed) -> None:
    """Nothing secret is written to a log."""
    logs = composed.compose("logs", "--no-color")
    assert ADMIN_PASSWORD not in logs


async def the_template(admin: Api) -> str:
    """The id of our template, whose catalog is added if it is not there yet."""
    answer = await admin.post("/catalogs", json={"name": "test", "url": "/catalog"})
    assert answer.status_code in {202, 409}, answer.text
    async with asyncio.timeout(60):
        while True:
            listed = (await admin.get("/templates", params={"search": "Test desktop"})).json()
            if listed["items"]:
                return str(listed["items"][0]["id"])
            await asyncio.sleep(0.2)


async def first_picture(ticket: dict[str, Any], stream_port: int) -> tuple[int, int, bytes]:
    """Connect as a viewer does; returns width, height and the first rectangle's pixels."""
    asked = urlsplit(ticket["url"])
    url = asked._replace(netloc=f"127.0.0.1:{stream_port}").geturl()
    async with (
        asyncio.timeout(30),
        websockets.connect(
            url, subprotocols=ticket["protocols"], compression=None, max_size=None
        ) as socket,
    ):
        reader = Reader(socket)
        assert await reader.exactly(12) == b"RFB 003.008\n"
        await socket.send(b"RFB 003.008\n")
        assert await reader.exactly(2) == b"\x01\x01"
        await socket.send(b"\x01")
        assert await reader.exactly(4) == bytes(4)
        await socket.send(b"\x01")
        greeting = await reader.exactly(24)
        width, height = int.from_bytes(greeting[:2]), int.from_bytes(greeting[2:4])
        bytes_per_pixel = greeting[4] // 8
        await reader.exactly(int.from_bytes(greeting[20:]))
        await socket.send(b"\x02\x00\x00\x01" + bytes(4))  # raw pixels
        whole = width.to_bytes(2) + height.to_bytes(2)
        await socket.send(b"\x03\x00" + bytes(4) + whole)
        header = await reader.exactly(4)
        assert header[0] == 0
        rectangle = await reader.exactly(12)
        size = int.from_bytes(rectangle[4:6]) * int.from_bytes(rectangle[6:8]) * bytes_per_pixel
        return width, height, await reader.exactly(size)


class Reader:
    """The messages of a WebSocket as one stream."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._rest = b""

    async def exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            message = await self._socket.recv()
            assert isinstance(message, bytes)
            self._rest += message
        found, self._rest = self._rest[:count], self._rest[count:]
        return found
