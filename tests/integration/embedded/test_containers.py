"""What the one-shot containers write really opens the servers, and nothing more.

Everything runs here as in docker-compose.yml, without an engine: the same commands with
other folders, a nats-server with the written configuration, a PostgreSQL with the
written password, and each service's settings read from its own folder.
"""

import asyncio
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import yaml

from streamspace_common.bus import Bus
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.runtime.settings import SECRETS_DIR, load
from streamspace_common.runtime.supervisor import Supervisor
from streamspace_common.testing.nats import NatsServer
from streamspace_embedded import containers
from streamspace_embedded.ports import free_port
from streamspace_embedded.postgres import FAST_AND_FORGETFUL, PostgresServer
from streamspace_embedded.settings_reference import SETTINGS
from streamspace_vnc_proxy.agent_ingress.main import start as start_ingress
from streamspace_vnc_proxy.agent_ingress.settings import AgentIngressSettings

COMPOSE: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[3] / "docker-compose.yml").read_text()
)


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """Folders as the volumes are: `installation`, and `secrets/<holder>`."""
    write(tmp_path)
    return tmp_path


def write(folder: Path) -> None:
    containers.write_secrets(folder / "installation", folder / "secrets", postgres="postgres:5432")


def run(folder: Path, command: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "streamspace_embedded.containers", command,
            "--installation", str(folder / "installation"), "--into", str(folder / "secrets"), *more,
        ],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def server_of(installation: Path) -> NatsServer:
    """The written configuration, with this machine's ports and folder in place."""
    port, monitoring = free_port(), free_port()
    text = (installation / "secrets/nats/nats.conf").read_text()
    for written, here in (
        (f'"0.0.0.0:{containers.NATS_PORT}"', f'"127.0.0.1:{port}"'),
        (f'"127.0.0.1:{containers.NATS_MONITORING_PORT}"', f'"127.0.0.1:{monitoring}"'),
        (str(containers.NATS_STORE), str(installation / "store")),
    ):
        assert written in text, written
        text = text.replace(written, here)
    return NatsServer(installation / "nats", config=text, port=port)


@pytest.fixture
def nats(installation: Path) -> Iterator[NatsServer]:
    server = server_of(installation)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def test_the_server_takes_each_service_with_its_own_credentials(
    installation: Path, nats: NatsServer
) -> None:
    for service, permissions in SERVICES.items():
        bus = await connect(installation, nats, service, permissions.inbox)
        assert bus.connected, service
        await bus.close()


async def test_what_was_written_again_keeps_the_server_and_its_clients(
    installation: Path, nats: NatsServer
) -> None:
    write(installation)
    bus = await connect(installation, nats, "session", SERVICES["session"].inbox)
    assert bus.connected
    await bus.close()


def test_nobody_enters_without_credentials(nats: NatsServer) -> None:
    with socket.create_connection(("127.0.0.1", nats.port), timeout=5) as connection:
        lines = connection.makefile("rb")
        assert lines.readline().startswith(b"INFO ")
        connection.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        assert b"Authorization Violation" in lines.readline()


async def connect(installation: Path, nats: NatsServer, service: str, inbox: str) -> Bus:
    credentials = installation / "secrets" / service / "nats.creds"
    async with asyncio.timeout(20):
        return await Bus.connect(nats.url, name=service, credentials=credentials, inbox=inbox)


async def test_an_agent_of_another_machine_comes_in_through_what_was_written(
    tmp_path: Path,
) -> None:
    """The ingress with its folder, NATS with its own, and what auth tells agents to trust."""
    run(tmp_path, "secrets", "--agents-host", "localhost")
    port = free_port()
    nats = server_of(tmp_path)
    written = f'"0.0.0.0:{containers.NATS_WEBSOCKET_PORT}"'
    assert nats.config is not None
    assert written in nats.config
    nats.config = nats.config.replace(written, f'"127.0.0.1:{port}"')
    own = tmp_path / "secrets" / containers.INGRESS
    assert sorted(path.name for path in own.iterdir()) == ["tls.crt", "tls.key"]
    supervisor = Supervisor("agent-ingress", drain_timeout=10)
    settings = AgentIngressSettings(
        listen_port=0,
        certificate_file=own / "tls.crt",
        key_file=own / "tls.key",
        bus_address=f"127.0.0.1:{port}",
    )
    nats.start()
    try:
        ingress = await start_ingress(settings, supervisor)
        running = asyncio.create_task(supervisor.run())
        bus = await Bus.connect(
            f"wss://localhost:{ingress.port}/bus",
            name="agent",
            credentials=tmp_path / "secrets/gateway/nats.creds",
            ca_file=tmp_path / "secrets/auth/ca.crt",
            inbox=SERVICES["gateway"].inbox,
            patience=20,
        )
        assert bus.connected
        await bus.close()
        supervisor.stop()
        await running
    finally:
        nats.stop()


def test_without_being_asked_to_nothing_is_made_for_agents_of_other_machines(
    installation: Path,
) -> None:
    assert "websocket" not in (installation / "secrets/nats/nats.conf").read_text()
    assert not list(installation.rglob("*.crt"))
    assert not (installation / "secrets" / containers.INGRESS).exists()


async def test_databases_are_made_and_each_service_reaches_its_own(installation: Path) -> None:
    postgres = PostgresServer(installation / "postgres", settings=FAST_AND_FORGETFUL)
    postgres.start()
    try:
        await give_the_superuser_the_written_password(postgres, installation)
        address = f"127.0.0.1:{postgres.port}"
        for _ in range(2):  # each start of the containers runs it
            await asyncio.to_thread(run, installation, "databases", "--postgres", address)
        for service in ("auth", "session", "catalog-sync"):
            url = (installation / "secrets" / service / "database_url").read_text().strip()
            connection = await asyncpg.connect(url.replace("postgres:5432", address), timeout=10)
            await connection.execute("CREATE TABLE mine (id integer)")
            await connection.close()
        foreign = url.replace("postgres:5432", address).removesuffix("/catalog") + "/session"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(foreign, timeout=10)
    finally:
        postgres.stop()


async def give_the_superuser_the_written_password(
    postgres: PostgresServer, installation: Path
) -> None:
    """As the image does at its first start."""
    assert COMPOSE["services"]["postgres"]["environment"]["POSTGRES_USER"] == containers.SUPERUSER
    password = (installation / "secrets/postgres/password").read_text().strip()
    connection = await asyncpg.connect(postgres.url, timeout=10)
    try:
        await connection.execute(f"ALTER ROLE {containers.SUPERUSER} PASSWORD '{password}'")
    finally:
        await connection.close()


@pytest.mark.parametrize("service", [*SERVICES, "agent"])
def test_each_service_starts_with_its_own_folder_and_variables(
    service: str, installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = installation / "secrets" / service
    folder.mkdir(exist_ok=True)  # the agent has no secret but its enrolment
    monkeypatch.setenv(SECRETS_DIR, str(folder))
    for name, value in COMPOSE["services"][service]["environment"].items():
        filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
        monkeypatch.setenv(name, filled.replace("/secrets/", f"{folder}/"))
    settings = load(SETTINGS[service])
    files = ("nats_credentials", "bus_authority_file", "bus_accounts_credentials")
    for path in (getattr(settings, name, None) for name in files):
        assert path is None or path.is_file(), path
    if (url := getattr(settings, "database_url", None)) is not None:
        parts = urlsplit(url.get_secret_value())
        assert (parts.hostname, parts.path) == ("postgres", f"/{parts.username}")


def test_a_second_run_changes_no_secret(installation: Path) -> None:
    before = contents(installation)
    run(installation, "secrets")  # by the command line, once
    after = contents(installation)
    assert set(after) == set(before)
    signed_anew = {name for name in after if after[name] != before[name]}
    assert all(name.endswith((".creds", "nats.conf")) for name in signed_anew)


def test_nobody_is_given_what_another_one_holds(installation: Path) -> None:
    """No database password and no key stands in two holders' folders."""
    seen: dict[str, str] = {}
    for name, text in contents(installation / "secrets").items():
        holder, file = name.split("/")
        if file == "nats.conf":
            assert not re.search(r"\bS[OAU][A-Z2-7]{56}\b", text), "a seed"
            continue
        assert text not in seen or seen[text] == holder, (name, seen.get(text))
        seen[text] = holder


def test_files_are_for_their_owner_alone(installation: Path) -> None:
    for path in (installation / "secrets").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
