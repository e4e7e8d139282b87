"""All of StreamSpace as a test's own processes, as many of each as the test wants.

The launcher of `make up` runs one of each and starts what dies again. Here a test does
that by hand: it ends a process in order, or at once, and starts it when it pleases; there
may be three NATS servers and several relays and agents. Secrets, databases and settings
come from the launcher's own modules, so that what is run is what is shipped.

Relays stand on addresses of their own (127.0.0.2, 127.0.0.3, ...) behind `Balancer`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

from tests.support.nats_cluster import NatsCluster

from streamspace_common.testing import leaks
from streamspace_embedded import databases, trust, wiring
from streamspace_embedded.children import Program, http_probe
from streamspace_embedded.layout import Layout
from streamspace_embedded.ports import free_port, is_free
from streamspace_embedded.postgres import PostgresServer

CONTROL_PLANE = ("session", "auth", "catalog-sync", "gateway")
_READY_WITHIN = 60.0
_LOOK_EVERY = 0.05


class Part(Protocol):
    """One process, ended in order or at once, and started again."""

    @property
    def pid(self) -> int | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def is_ready(self) -> bool: ...


class Service(Program):
    """One of our own programs."""

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        process = self._process
        if process is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


class Postgres:
    """The database server."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @property
    def pid(self) -> int | None:
        return self._server.pid

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.kill()

    def is_ready(self) -> bool:
        return self._server.running


class Ensemble:
    """The processes, by name: `nats-1`, `postgres`, the services, `relay-1`, `agent-1`, ...

    Args:
        data: a folder for everything.
        buses: NATS servers, 1 or 3; three keep three copies of each stream, over TLS.
        relays: how many replicas.
        agents: how many, all of the one cluster, with the null runtime and one ledger.
        settings: `STREAMSPACE_...` variables for all of them.
    """

    def __init__(
        self,
        data: Path,
        *,
        buses: int = 1,
        relays: int = 1,
        agents: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.layout = Layout(data)
        self.port, self.stream_port = free_port(), free_port()
        self._relay_port = _free_on([_relay_host(number) for number in range(relays)])
        self._buses, self._relays, self._agents = buses, relays, agents
        self._settings = dict(settings or {})
        self.parts: dict[str, Part] = {}
        self.bus: NatsCluster

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def relay_addresses(self) -> list[tuple[str, int]]:
        """Where viewers and tunnels may be sent."""
        return [(_relay_host(number), self._relay_port) for number in range(self._relays)]

    @property
    def ledger(self) -> Path:
        """What the null runtime did."""
        return self.layout.agent / "ledger.jsonl"

    def pids(self) -> set[int]:
        """The processes of now, for the guard that looks for leaked ones."""
        return {pid for part in self.parts.values() if (pid := part.pid) is not None}

    async def start(self) -> None:
        """Bring everything up, all replicas too; returns when all of it is ready."""
        layout = self.layout
        layout.make()
        leaks.shared.append(self.pids)
        known = trust.load(layout)
        ports = layout.inner_ports("nats", "postgres")
        trust.write_credentials(layout, known, nats_port=ports["nats"])
        bus = self.bus = NatsCluster(layout.nats, known.trust, count=self._buses)
        postgres = PostgresServer(layout.postgres, port=ports["postgres"])
        self.parts["postgres"] = Postgres(postgres)
        for name, server in bus.servers.items():
            self.parts[name] = server
        for name in list(self.parts):
            await asyncio.to_thread(self.parts[name].start)
        await databases.prepare(postgres.url, known.database_passwords)
        await self.wait_ready(*bus.servers)
        self._make_services(known, bus, ports["postgres"])
        await self.start_parts("session")
        await self.start_parts(*(name for name in CONTROL_PLANE if name != "session"))
        await self.start_parts(
            *(name for name in self.parts if name.startswith(("relay-", "agent-")))
        )

    async def start_parts(self, *names: str) -> None:
        """Start these and wait until they are ready."""
        for name in names:
            await asyncio.to_thread(self.parts[name].start)
        await self.wait_ready(*names)

    async def end(self, name: str, *, kill: bool = False) -> None:
        """End one in order, or at once."""
        part = self.parts[name]
        await asyncio.to_thread(part.kill if kill else part.stop)

    async def restart(self, name: str, *, kill: bool = False) -> None:
        """End one and start it again; returns when it is ready."""
        await self.end(name, kill=kill)
        await self.start_parts(name)

    async def wait_ready(self, *names: str) -> None:
        try:
            async with asyncio.timeout(_READY_WITHIN):
                for name in names:
                    while not await asyncio.to_thread(self.parts[name].is_ready):
                        await asyncio.sleep(_LOOK_EVERY)
        except TimeoutError:
            raise AssertionError(f"{name} does not come up:\n{self.log(name)[-4000:]}") from None

    def log(self, name: str) -> str:
        """What a process of ours has written."""
        for path in (self.layout.log(name), self.layout.nats / f"{name}.log"):
            if path.exists():
                return path.read_text(errors="replace")
        return "no log"

    async def close(self) -> None:
        """End everything: what asks others first."""
        order = sorted(self.parts, key=lambda name: name.startswith(("nats-", "postgres")))
        for name in order:
            await asyncio.to_thread(self.parts[name].stop)
        leaks.shared.remove(self.pids)

    def _make_services(self, known: trust.Secrets, bus: NatsCluster, postgres_port: int) -> None:
        replicas = {f"relay-{n + 1}": n for n in range(self._relays)}
        agents = [f"agent-{n + 1}" for n in range(self._agents)]
        addresses = wiring.Addresses(
            host="127.0.0.1",
            port=self.port,
            stream_port=self.stream_port,
            nats_port=bus.port,
            postgres_port=postgres_port,
            health_ports={name: free_port() for name in wiring.NAMES},
        )
        outer = {
            name: value for name, value in os.environ.items() if not name.startswith("STREAMSPACE_")
        } | self._settings
        for process in wiring.processes(self.layout, known, addresses, web_root=None, outer=outer):
            environment = process.environment | bus.settings()
            if process.name == "vnc-proxy":
                for name, number in replicas.items():
                    self._add(name, process.command, environment | self._relay(number))
            elif process.name == wiring.AGENT:
                environment |= {"STREAMSPACE_AGENT_RUNTIME": "null"}
                environment["STREAMSPACE_AGENT_ON_EXIT"] = "keep"
                for name in agents:
                    self._add(name, process.command, environment)
            else:
                self._add(process.name, process.command, environment)

    def _relay(self, number: int) -> dict[str, str]:
        host = _relay_host(number)
        return {
            "STREAMSPACE_VNC_PROXY_LISTEN_HOST": host,
            "STREAMSPACE_VNC_PROXY_LISTEN_PORT": str(self._relay_port),
            "STREAMSPACE_VNC_PROXY_REPLICA_ADDRESS": f"{host}:{self._relay_port}",
            "STREAMSPACE_VNC_PROXY_PEER_HOSTS": "127.0.0.0/8",
        }

    def _add(self, name: str, command: str, environment: Mapping[str, str]) -> None:
        # Replicas share the environment of their kind, but not the health port.
        port = free_port()
        kind = {"relay": "VNC_PROXY", "agent": "AGENT"}.get(name.split("-", maxsplit=1)[0])
        kind = kind or name.upper().replace("-", "_")
        self.parts[name] = Service(
            name,
            [str(Path(sys.executable).parent / command)],
            log=self.layout.log(name),
            probe=http_probe(f"http://127.0.0.1:{port}/readyz"),
            environment={**environment, f"STREAMSPACE_{kind}_HEALTH_PORT": str(port)},
        )


def _relay_host(number: int) -> str:
    return f"127.0.0.{number + 2}"


def _free_on(hosts: list[str]) -> int:
    """A port that is free on all of these addresses."""
    while True:
        port = free_port()
        if all(is_free(port, host) for host in hosts):
            return port


class Balancer:
    """What stands before replicas: hands each connection to the next one that takes it."""

    def __init__(self, port: int, targets: list[tuple[str, int]]) -> None:
        self._port = port
        self._targets = targets
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in tuple(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        task.add_done_callback(self._pipes.discard)
        try:
            far = await self._connect()
            if far is None:
                return
            far_reader, far_writer = far
            try:
                # Whichever side ends, ends both, as the connection of a process that died does.
                ways = [
                    asyncio.create_task(_copy(reader, far_writer)),
                    asyncio.create_task(_copy(far_reader, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
            finally:
                far_writer.close()
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        # Others take their turns while this one waits.
        self._turn = turn = (self._turn + 1) % len(self._targets)
        for host, port in (*self._targets[turn:], *self._targets[:turn]):
            try:
                return await asyncio.open_connection(host, port)
            except OSError:
                continue
        return None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
