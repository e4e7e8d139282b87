"""NATS on a disk that was full for a moment: seen, and mended by a new start."""

import asyncio
import json
import resource
import shutil
import subprocess
import sys
from types import SimpleNamespace

from streamspace_common.bus import Bus, BusError
from streamspace_common.testing.waiting import eventually
from streamspace_embedded import servers
from streamspace_embedded.ports import answers, free_port

_LIMIT = 256 * 1024


def start(tmp_path, *, largest_file=None):
    """A server; with `largest_file` (bytes), writing beyond that fails as on a full disk."""
    port, monitoring = free_port(), free_port()
    store = tmp_path / "store"
    config = tmp_path / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{monitoring}"\n'
        f"jetstream {{\n store_dir: {json.dumps(str(store))}\n sync_interval: always\n}}\n"
    )
    command = [servers.nats_executable(), "-c", str(config)]
    if largest_file is not None:
        # Go ignores SIGXFSZ, so that the write fails with EFBIG.
        limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file}, {resource.RLIM_INFINITY}))"
        run = f"{limit}; import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", run, *command]
    log = (tmp_path / "nats.log").open("ab")
    with log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    return process, port, monitoring, store


async def test_a_stream_that_could_not_write_once_is_seen_and_healed_by_a_new_start(
    tmp_path, monkeypatch
):
    process, port, monitoring, store = start(tmp_path, largest_file=_LIMIT)
    try:
        await eventually(lambda: answers(port))
        bus = await Bus.connect(f"nats://127.0.0.1:{port}", name="test")
        await bus.link.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s"], "storage": "file"})
        assert servers.stores(monitoring, store)

        async def refused():
            try:
                await bus.link.request("s", b"x" * 64 * 1024, timeout=1)
            except BusError:
                return True
            return False

        await eventually(refused)
        await eventually(lambda: not servers.stores(monitoring, store))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        assert servers.stores(monitoring, store), "without room a new start would not help"
        await bus.close()
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
    process, port, monitoring, store = start(tmp_path)
    try:
        await eventually(lambda: answers(port))
        monkeypatch.undo()
        assert servers.stores(monitoring, store)
        bus = await Bus.connect(f"nats://127.0.0.1:{port}", name="test")
        await bus.link.request("s", b"x", timeout=5)
        await bus.close()
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


def test_a_server_that_does_not_answer_is_not_called_unsound(tmp_path):
    assert servers.stores(free_port(), tmp_path)
