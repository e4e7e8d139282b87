"""A real nats-server for tests: JetStream on, its own port and store, killable.

All methods are plain functions (a start takes about 50 ms), so that synchronous tests
can use them too.
"""

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from streamspace_common.bus import Bus, provision
from streamspace_embedded.ports import free_port
from streamspace_embedded.servers import nats_executable

_START_TIMEOUT = 20.0


class NatsServer:
    """One nats-server process.

    Args:
        directory: an empty directory for its configuration, store and log.
        config: the whole configuration's text, where a test needs its own (it has to
            listen on `port`); the default is an open server with JetStream.
        port: where it listens; by default any free port. Kept over restarts.
    """

    def __init__(
        self, directory: Path, *, config: str | None = None, port: int | None = None
    ) -> None:
        self.port = port or free_port()
        self.directory = directory
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """All it has logged so far."""
        path = self.directory / "nats.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start, and return once it takes clients."""
        assert not self.running, "already running"
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "nats.conf"
        config.write_text(self.config if self.config is not None else self._open_config())
        with (self.directory / "nats.log").open("ab") as output:
            self._process = subprocess.Popen(
                [nats_executable(), "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        atexit.register(self.kill)
        self._wait_ready()

    def stop(self) -> None:
        """End it in order; does nothing when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what it had not written is lost."""
        self._end(signal.SIGKILL)

    def restart(self, *, kill: bool = False) -> None:
        """Stop or kill it and start it again, same port and store."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def info(self) -> dict[str, Any]:
        """The INFO line a client gets.

        Raises:
            OSError: it takes no connections.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            line = connection.makefile("rb").readline()
        if not line.startswith(b"INFO "):
            raise ConnectionError("no INFO line")
        info: dict[str, Any] = json.loads(line[5:])
        return info

    def _open_config(self) -> str:
        return "\n".join(
            [
                f'server_name: "test-{self.port}"',
                f"listen: 127.0.0.1:{self.port}",
                "jetstream {",
                f'  store_dir: "{self.directory / "store"}"',
                "  max_file: 40GB",
                "  max_mem: 64MB",
                "  sync_interval: always",
                "}",
                "",
            ]
        )

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                self.info()
            except (OSError, ValueError):
                if not self.running or time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"nats-server did not start:\n{self.log}") from None
                time.sleep(0.005)
            else:
                return

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        atexit.unregister(self.kill)
        if process is None or process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A running, empty server of this test's own."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """Connected to `nats_server`, with all streams and service durables there."""
    connected = await Bus.connect(nats_server.url, name="test")
    try:
        await provision(connected)
        yield connected
    finally:
        await connected.close()
