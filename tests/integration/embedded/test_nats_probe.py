"""The probe of containers' NATS, run by BusyBox as in its image, on a disk that fills for real.

The disk is a file system of a few megabytes in a mount namespace of the server's own.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import debian
from tests.support.stack import REPOSITORY

from streamspace_common.bus import Bus, BusError
from streamspace_common.testing.waiting import eventually
from streamspace_embedded import servers
from streamspace_embedded.ports import answers, free_port

PROBE = REPOSITORY / "deploy/k8s/nats/base/stores.sh"
MEGABYTES = 96
"""More than the probe wants to see free before it asks for a new start."""
WELL, AWAY, START_AGAIN = 0, 1, 2


class Server:
    """nats-server on a small file system; `fill` and `make_room` are seen by it alone."""

    def __init__(self, folder: Path) -> None:
        self.port, self.monitoring = free_port(), free_port()
        self._store = folder / "store"
        self._store.mkdir()
        self._config = folder / "nats.conf"
        self._config.write_text(
            f'listen: "127.0.0.1:{self.port}"\nhttp: "127.0.0.1:{self.monitoring}"\n'
            f'jetstream {{\n store_dir: "{self._store}"\n sync_interval: always\n'
            " max_file: 1GB\n}\n"
        )
        self._programs = folder / "bin"
        self._programs.mkdir()
        for name in ("nc", "df", "awk", "sh"):
            (self._programs / name).symlink_to(debian.find("busybox") or "")
        self._space = self._spawn(
            f"mount -t tmpfs -o size={MEGABYTES}m tmpfs {self._store} && exec sleep infinity",
            ["unshare", "--mount", "--propagation", "private"],
        )
        self._seen = Path(f"/proc/{self._space.pid}/root{self._store}")
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._server = self._spawn(
            f"exec {servers.nats_executable()} -c {self._config} -l {self._config}.log",
            self._inside(),
        )

    def end(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait()

    def close(self) -> None:
        self.end()
        self._space.kill()
        self._space.wait()

    def mounted(self) -> bool:
        return self._seen.exists() and self._seen.is_mount()

    def fill(self) -> None:
        with (self._seen / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(64 * 1024))
            except OSError:
                pass

    def make_room(self) -> None:
        (self._seen / "ballast").unlink()

    def probe(self) -> int:
        command = ["sh", str(PROBE), str(self._store), str(self.monitoring)]
        within = [*self._inside(), "env", f"PATH={self._programs}"]
        return subprocess.run([*within, *command], check=False).returncode

    def _inside(self) -> list[str]:
        return ["nsenter", "--mount", f"--target={self._space.pid}"]

    @staticmethod
    def _spawn(script: str, within: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*within, "sh", "-c", script])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("filling a disk for real needs root, for a file system of its own")
    try:
        debian.install({"busybox": "busybox-static", "nsenter": "util-linux"})
    except debian.UnavailableError as error:
        pytest.skip(str(error))
    server = Server(tmp_path)
    try:
        yield server
    finally:
        server.close()


async def test_nats_is_started_again_when_its_disk_has_room_and_not_while_it_is_full(
    server: Server,
) -> None:
    await eventually(server.mounted)
    assert await asyncio.to_thread(server.probe) == AWAY
    server.start()
    await eventually(lambda: answers(server.port))
    await eventually(lambda: server.probe() == WELL)
    bus = await Bus.connect(f"nats://127.0.0.1:{server.port}", name="test")
    await bus.link.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "storage": "file"})

    async def stores(timeout: float = 0.5) -> bool:
        try:
            await bus.link.request("s", b"x" * 20_000, timeout=timeout)
        except BusError:
            return False
        return True

    assert await stores(timeout=5)
    server.fill()
    assert not await stores()
    assert server.probe() == WELL, "a new start would change nothing"
    server.make_room()
    assert not await stores(), "it heals by itself; the probe is needed no more"
    assert server.probe() == START_AGAIN
    server.end()
    server.start()
    await eventually(lambda: stores(timeout=5), timeout=30)
    assert server.probe() == WELL
    await bus.close()
