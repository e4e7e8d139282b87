"""The launcher's children: watched, started again, ended in order."""

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from streamspace_common.testing.waiting import eventually
from streamspace_embedded.children import Program, StartError, Watcher, port_probe
from streamspace_embedded.ports import free_port

SERVER = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"


@asynccontextmanager
async def watching(*programs, **options):
    told = []
    watcher = Watcher(told.append, lambda: None, **options)
    try:
        for program in programs:
            await watcher.start(program)
        yield watcher, told
    finally:
        await watcher.stop_all()


def program(tmp_path, name="server", code=SERVER):
    port = free_port()
    return Program(
        name,
        [sys.executable, "-c", code, str(port)],
        log=tmp_path / f"{name}.log",
        probe=port_probe(port),
        environment=dict(os.environ),
    )


async def test_a_killed_child_is_told_and_started_again(tmp_path):
    server = program(tmp_path)
    async with watching(server) as (watcher, told):
        await watcher.wait_ready("server", 20)
        first = server.pid
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: server.pid != first)
        await eventually(watcher.all_ready)
        assert told == ["server was ended by SIGKILL; starting it again"]


async def test_a_child_that_cannot_go_on_is_ended_and_started_again(tmp_path):
    port, sound = free_port(), [True, False, True, False, False]
    server = Program(
        "server",
        [sys.executable, "-c", SERVER, str(port)],
        log=tmp_path / "server.log",
        probe=port_probe(port),
        sound=lambda: sound.pop(0) if sound else True,
        environment=dict(os.environ),
    )
    async with watching(server, sound_every=0.01) as (watcher, told):
        await watcher.wait_ready("server", 20)
        first = server.pid
        await eventually(lambda: server.pid != first)
        assert sound == []
        assert told == [
            "server runs and cannot go on by itself",
            "server was ended by SIGTERM; starting it again",
        ]


async def test_a_child_that_cannot_be_started_again_at_once_is_tried_until_it_can(tmp_path):
    server = program(tmp_path)
    async with watching(server) as (watcher, told):
        await watcher.wait_ready("server", 20)
        first, start, errors = server.pid, server.start, [StartError("no room"), OSError("no room")]

        def start_at_last():
            if errors:
                raise errors.pop()
            start()

        server.start = start_at_last
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: server.pid != first)
        await eventually(watcher.all_ready)
        assert told[1:] == ["server does not start: no room"] * 2


async def test_a_child_that_never_gets_ready_is_an_error(tmp_path):
    async with watching(program(tmp_path, code="import time; time.sleep(600)")) as (watcher, _):
        with pytest.raises(StartError, match="server is not ready"):
            await watcher.wait_ready("server", 0.2)


async def test_waves_end_one_after_another(tmp_path):
    servers = [program(tmp_path, name) for name in ("first", "second", "third")]
    async with watching(*servers) as (watcher, _):
        for server in servers:
            await watcher.wait_ready(server.name, 20)
        ended = []
        for server in servers:
            stop = server.stop

            def stop_and_note(stop=stop, server=server):
                stop()
                ended.append(server.name)

            server.stop = stop_and_note
        await watcher.stop_all(["second"], ["third"])
        assert ended == ["second", "third", "first"]
        assert all(server.poll() is not None for server in servers)


def run_cli(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "streamspace_embedded.main", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_taken_port_is_a_sentence(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_cli("up", "--data", str(tmp_path / "data"), "--port", str(port))
    assert done.returncode == 1
    assert f"Port {port} is taken by another program." in done.stderr
    assert "Traceback" not in done.stderr


def test_down_where_nothing_runs_says_so(tmp_path):
    done = run_cli("down", "--data", str(tmp_path / "data"))
    assert done.returncode == 0
    assert "does not run here" in done.stdout
