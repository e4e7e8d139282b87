"""All of StreamSpace for a run under fire: replicas, several clusters, and links to cut.

The processes and their settings are those of `make up` (`streamspace_embedded.wiring`);
what differs is that there are several of a kind, and that each reaches NATS and PostgreSQL
through a link of its own.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
from tests.chaos import volumes
from tests.chaos.links import Link
from tests.chaos.members import Keeper, Postgres, Program
from tests.chaos.plan import Targets
from tests.chaos.volumes import Volume
from tests.support.stack import ADMIN_PASSWORD

from streamspace_embedded import databases, orphans, trust, wiring
from streamspace_embedded.layout import Layout
from streamspace_embedded.ports import answers, free_port
from streamspace_embedded.postgres import PostgresServer
from streamspace_embedded.servers import nats_executable, stores

_READY = 90.0
_SOUND_EVERY = 5.0
_DESKTOP_PROGRAMS = ("Xvnc", "openbox", "xterm")
_SETTINGS = {
    "STREAMSPACE_ADMIN_PASSWORD": ADMIN_PASSWORD,
    "STREAMSPACE_AUTH_LOGIN_TRIES_PER_ADDRESS": "10000",
    "STREAMSPACE_AUTH_ACCESS_TOKEN_LIFETIME": "3600",
    "STREAMSPACE_GATEWAY_CREATE_RATE": "100000/minute",
    "STREAMSPACE_SESSION_QUOTA_SESSIONS": "0",
    "STREAMSPACE_SESSION_QUOTA_CPU": "0",
    "STREAMSPACE_SESSION_QUOTA_MEMORY": "0",
    "STREAMSPACE_AGENT_MAX_SESSIONS": "100000",
    "STREAMSPACE_AGENT_CPU": "1000000",
    "STREAMSPACE_AGENT_MEMORY": "1000Ti",
    # Starts that take a while, so that kills come amid them.
    "STREAMSPACE_AGENT_NULL_START_DELAY": "0.3",
    "STREAMSPACE_AGENT_NULL_STOP_DELAY": "0.1",
    "STREAMSPACE_AGENT_NULL_DELAY_JITTER": "0.9",
    "STREAMSPACE_AGENT_WINDOW_PATIENCE": "0.5",
    "STREAMSPACE_AGENT_KILL_GRACE": "0.5",
}
_POSTGRES = {"max_wal_size": "96MB", "min_wal_size": "32MB"}
"""A disk of its own is small; without limits WAL alone would fill it."""


@dataclass(frozen=True)
class Cluster:
    """A cluster with its agents, which share a folder as replicas on one machine do."""

    name: str
    runtime: str
    replicas: int


@dataclass(frozen=True)
class Shape:
    """How many there are of each service, and which clusters."""

    clusters: tuple[Cluster, ...]
    replicas: Mapping[str, int] = field(default_factory=dict)
    nats_megabytes: int = 256
    postgres_megabytes: int = 384

    def supported(self) -> "Shape":
        """Without what this machine cannot run."""
        if all(shutil.which(program) for program in _DESKTOP_PROGRAMS):
            return self
        return replace(self, clusters=tuple(c for c in self.clusters if c.runtime != "process"))


class Fleet:
    """One running StreamSpace. `tell` shows a person what happens."""

    def __init__(self, folder: Path, shape: Shape, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.shape = shape
        self.gateways: list[str] = []
        self.links: dict[str, Link] = {}
        self.disks: dict[str, Volume] = {}
        self.keeper = Keeper(tell)
        self._tell = tell
        self._layout = Layout(folder / "data")
        self._health: dict[str, str] = {}
        self._environments: dict[str, dict[str, str]] = {}
        # Sockets need a short path, and what a killed desktop leaves of them has to go with us.
        self._sockets = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
        self._ports = {"nats": free_port(), "monitoring": free_port(), "postgres": free_port()}
        self._care: asyncio.Task[None] | None = None

    # What there is

    def targets(self) -> Targets:
        return Targets(
            processes=self.keeper.names(), links=tuple(self.links), disks=tuple(self.disks)
        )

    def effects_file(self, cluster: str) -> Path:
        return self.folder / f"effects-{cluster}.jsonl"

    def null_ledger(self, cluster: str) -> Path:
        return self._state(cluster) / "ledger.jsonl"

    def desktops(self) -> dict[int, str]:
        """Living processes of sessions: pid and session."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    session = self._session_of((entry / "environ").read_bytes())
                    if session is not None:
                        found[int(entry.name)] = session
        return found

    def _session_of(self, environment: bytes) -> str | None:
        variables = dict(each.split(b"=", 1) for each in environment.split(b"\0") if b"=" in each)
        home = variables.get(b"HOME", b"").decode(errors="replace")
        mark = variables.get(b"STREAMSPACE_SESSION_ID")
        if mark is None or not home.startswith(str(self.folder)):
            return None
        return mark.decode()

    # Beginning and end

    async def start(self) -> None:
        """Start everything and enrol the clusters; returns when all is ready."""
        self._layout.make()
        (self.folder / "logs").mkdir()
        self._mount()
        known = trust.load(self._layout)
        await self._start_servers(known)
        # Desktops outlive their agents, and somebody has to bury them.
        orphans.adopt_orphans(lambda: self.keeper.pids, lambda: None)
        for process in self._processes(known):
            await self._start_service(process)
            if process.name == "session":
                # The very first start: it makes the streams.
                await self.ready()
        await self.ready()
        await self._start_agents()
        await self.ready()

    async def stop(self) -> None:
        """End everything that was started, sessions included."""
        agents = [name for name in self.keeper.names() if name.startswith("agent-")]
        services = [
            name
            for name in self.keeper.names()
            if name not in {"nats", "postgres", *agents} and not name.startswith("session")
        ]
        sessions = [name for name in self.keeper.names() if name.startswith("session")]
        if self._care is not None:
            self._care.cancel()
            await asyncio.gather(self._care, return_exceptions=True)
        await self.keeper.stop_all(agents, services, sessions, ["nats", "postgres"])
        for link in self.links.values():
            await link.close()
        for pid in self.desktops():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._sockets, ignore_errors=True)

    async def ready(self) -> None:
        """Return once every process says that it is.

        Raises:
            AssertionError: one does not within a minute and a half.
        """
        waiting = dict(self._health)
        while not await asyncio.to_thread(stores, self._ports["monitoring"], self._layout.nats):
            await asyncio.sleep(0.2)
        async with httpx2.AsyncClient(trust_env=False, timeout=2) as client:
            deadline = asyncio.get_running_loop().time() + _READY
            while waiting:
                for name, url in tuple(waiting.items()):
                    with contextlib.suppress(httpx2.HTTPError):
                        if (await client.get(url)).status_code == 200:
                            del waiting[name]
                if asyncio.get_running_loop().time() > deadline:
                    raise AssertionError(f"not ready: {', '.join(waiting)}")
                if waiting:
                    await asyncio.sleep(0.1)

    async def rebuilt(self) -> tuple[bool, str]:
        """Whether the sessions' projection, built anew from the events, is the live one."""
        command = ["-m", "streamspace_session.rebuild", "--into", "rebuilt", "--discard"]
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, *command],
            env=self._environments["session-1"],
            capture_output=True,
            text=True,
            check=False,
        )
        (self.folder / "rebuilt.txt").write_text(done.stdout + done.stderr)
        # Its status may be lost: we bury orphans, and cannot tell it from one.
        told = done.stdout.strip().rpartition("\n")[2]
        return told.endswith("the same as live."), told

    def _mount(self) -> None:
        if not volumes.inside():
            return
        self.disks = {
            "nats": Volume(self._layout.nats, self.shape.nats_megabytes),
            "postgres": Volume(self._layout.postgres, self.shape.postgres_megabytes),
        }
        for disk in self.disks.values():
            disk.mount()

    async def _start_servers(self, known: trust.Secrets) -> None:
        config = trust.write_credentials(
            self._layout,
            known,
            nats_port=self._ports["nats"],
            monitoring_port=self._ports["monitoring"],
        )
        await self.keeper.start(
            Program(
                "nats",
                [nats_executable(), "-c", str(config)],
                environment=os.environ,
                log=self._log("nats"),
            )
        )
        server = PostgresServer(
            self._layout.postgres, port=self._ports["postgres"], settings=_POSTGRES
        )
        await self.keeper.start(Postgres(server))
        await databases.prepare(server.url, known.database_passwords)
        while not answers(self._ports["nats"]):
            await asyncio.sleep(0.05)
        self._care = asyncio.create_task(self._keep_nats_sound(), name="care of nats")

    async def _keep_nats_sound(self) -> None:
        """As the launcher of `make up` does: a stream that could not write needs a new start."""
        while True:
            await asyncio.sleep(_SOUND_EVERY)
            if not await asyncio.to_thread(stores, self._ports["monitoring"], self._layout.nats):
                self._tell("nats cannot store any more; starting it again")
                await self.keeper.restart("nats", 0.1)

    def _processes(self, known: trust.Secrets) -> list[wiring.Process]:
        """The services' processes; their replicas, links and ports come later."""
        addresses = wiring.Addresses(
            host="127.0.0.1",
            port=0,
            stream_port=free_port(),
            nats_port=self._ports["nats"],
            postgres_port=self._ports["postgres"],
            health_ports=dict.fromkeys(wiring.NAMES, 0),
        )
        outer = {**_outside(), **_SETTINGS}
        found = wiring.processes(self._layout, known, addresses, web_root=None, outer=outer)
        return [process for process in found if process.name != wiring.AGENT]

    async def _start_service(self, process: wiring.Process) -> None:
        prefix = f"STREAMSPACE_{process.name.upper().replace('-', '_')}_"
        for number in range(1, self.shape.replicas.get(process.name, 1) + 1):
            name = f"{process.name}-{number}"
            environment = dict(process.environment)
            port = await self._link(name, "nats")
            environment["STREAMSPACE_NATS_URL"] = f"nats://127.0.0.1:{port}"
            if f"{prefix}DATABASE_URL" in environment:
                environment[f"{prefix}DATABASE_URL"] = environment[f"{prefix}DATABASE_URL"].replace(
                    f":{self._ports['postgres']}/", f":{await self._link(name, 'postgres')}/"
                )
            if process.name == "gateway":
                port = free_port()
                environment[f"{prefix}LISTEN_PORT"] = str(port)
                self.gateways.append(f"http://127.0.0.1:{port}")
            await self._start_program(name, process.command, prefix, environment)

    async def _start_program(
        self, name: str, command: str, prefix: str, environment: dict[str, str]
    ) -> None:
        health = free_port()
        environment[f"{prefix}HEALTH_PORT"] = str(health)
        self._health[name] = f"http://127.0.0.1:{health}/readyz"
        self._environments[name] = environment
        await self.keeper.start(
            Program(
                name,
                [str(Path(sys.executable).parent / command)],
                environment=environment,
                log=self._log(name),
            )
        )

    async def _link(self, process: str, server: str) -> int:
        link = Link(f"{process}:{server}", self._ports[server])
        await link.open()
        self.links[link.name] = link
        return link.port

    # Clusters

    async def _start_agents(self) -> None:
        async with httpx2.AsyncClient(
            base_url=f"{self.gateways[0]}/api/v1", trust_env=False, timeout=30
        ) as client:
            answer = await client.post(
                "/auth/login", json={"username": "admin", "password": ADMIN_PASSWORD}
            )
            headers = {"Authorization": f"Bearer {answer.json()['accessToken']}"}
            for cluster in self.shape.clusters:
                body = {"id": cluster.name, "name": cluster.name}
                enrolled = await client.post("/clusters", json=body, headers=headers)
                assert enrolled.status_code == 201, enrolled.text
                for number in range(1, cluster.replicas + 1):
                    await self._start_agent(cluster, number, enrolled.json())
            await _until_online(client, headers, {c.name for c in self.shape.clusters})

    async def _start_agent(self, cluster: Cluster, number: int, enrolment: dict[str, Any]) -> None:
        name = f"agent-{cluster.name}-{number}"
        state = self._state(cluster.name)
        state.mkdir(mode=0o700, exist_ok=True)
        file = self.folder / f"{name}.json"
        # The link exists only once its agent has a name.
        port = await self._link(name, "nats")
        file.write_text(json.dumps({**enrolment, "natsUrls": [f"nats://127.0.0.1:{port}"]}))
        file.chmod(0o600)
        prefix = "STREAMSPACE_AGENT_"
        settings = {
            "ENROLMENT_FILE": str(file),
            "STATE_DIR": str(state),
            "RUNTIME": cluster.runtime,
            "RUNTIME_DIR": str(self._sockets / cluster.name),
            "EFFECTS_FILE": str(self.effects_file(cluster.name)),
        }
        environment = {
            **_outside(),
            **{k: v for k, v in _SETTINGS.items() if k.startswith(prefix)},
            **{f"{prefix}{key}": value for key, value in settings.items()},
        }
        await self._start_program(name, "streamspace-agent", prefix, environment)

    def _state(self, cluster: str) -> Path:
        return self.folder / cluster

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def _outside() -> dict[str, str]:
    """Our own environment without settings that are meant for somebody else."""
    return {k: v for k, v in os.environ.items() if not k.startswith("STREAMSPACE_")}


async def _until_online(
    client: httpx2.AsyncClient, headers: dict[str, str], names: set[str]
) -> None:
    async with asyncio.timeout(_READY):
        while True:
            answer = await client.get("/clusters", headers=headers)
            online = {each["id"] for each in answer.json()["items"] if each["presence"] == "online"}
            if names <= online:
                return
            await asyncio.sleep(0.1)
