"""The PostgreSQL of `make up` and of the tests: started, killed, found again."""

import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import asyncpg
import psutil
import pytest

from streamspace_embedded.postgres import FAST_AND_FORGETFUL, PostgresError, PostgresServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "postgres"


def server(folder: Path, port: int = 0) -> PostgresServer:
    return PostgresServer(folder, port=port, settings=FAST_AND_FORGETFUL)


async def execute(server: PostgresServer, statement: str) -> object:
    connection = await asyncpg.connect(server.url, timeout=5)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_it_keeps_data_and_port_over_restart_and_kill(folder: Path) -> None:
    postgres = server(folder)
    postgres.start()
    try:
        port = postgres.port
        await execute(postgres, "CREATE TABLE kept AS SELECT 1 AS one")
        postgres.restart()
        assert await execute(postgres, "SELECT one FROM kept") == 1
        postgres.kill()
        assert not postgres.running
        postgres.start()
        assert await execute(postgres, "SELECT one FROM kept") == 1
        assert postgres.port == port
    finally:
        postgres.stop()


async def test_a_server_left_by_a_killed_launcher_is_replaced(folder: Path) -> None:
    left = server(folder)
    left.start()
    found = server(folder)
    found.start()
    try:
        assert left.pid != found.pid
        assert await execute(found, "SELECT 1") == 1
        assert not left.running
    finally:
        found.stop()


async def test_a_pid_that_became_another_programs_is_no_hindrance(folder: Path) -> None:
    postgres = server(folder)
    postgres.start()
    postgres.kill()
    pid_file = postgres.data / "postmaster.pid"
    _, *rest = pid_file.read_text().splitlines()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        pid_file.write_text("\n".join([str(stranger.pid), *rest]))
        postgres.start()
        try:
            assert await execute(postgres, "SELECT 1") == 1
            assert stranger.poll() is None
        finally:
            postgres.stop()
            stranger.kill()


def test_a_taken_port_is_said(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        postgres = server(folder, port=taken.getsockname()[1])
        with pytest.raises(PostgresError, match="Address already in use"):
            postgres.start()
    assert not postgres.running


async def test_a_wrong_password_opens_nothing(folder: Path) -> None:
    postgres = server(folder)
    postgres.start()
    try:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.url_for("postgres", password="guess"))
    finally:
        postgres.stop()


def test_only_its_user_reads_password_and_data(folder: Path) -> None:
    postgres = server(folder)
    postgres.start()
    postgres.stop()
    assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(postgres.data.stat().st_mode) == 0o700


async def test_it_never_runs_as_root(folder: Path) -> None:
    postgres = server(folder)
    postgres.start()
    try:
        assert postgres.pid is not None
        assert psutil.Process(postgres.pid).uids().effective != 0
    finally:
        postgres.stop()


async def test_a_crash_of_the_process_is_seen(folder: Path) -> None:
    postgres = server(folder)
    postgres.start()
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGQUIT)
    psutil.wait_procs([psutil.Process(postgres.pid)], timeout=10)
    assert not postgres.running
    postgres.start()
    try:
        assert await execute(postgres, "SELECT 1") == 1
    finally:
        postgres.stop()
