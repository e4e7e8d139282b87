"""The Secrets and the configurations of deploy/k8s, in real servers.

The files are those that a pod mounts; only paths, ports and names are this machine's.
"""

import asyncio
import base64
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from streamspace_common.bus import Bus, BusError, StartAt, provision
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.contracts.streams import EVENTS, STREAMS
from streamspace_common.testing.nats import NatsServer
from streamspace_common.testing.waiting import eventually
from streamspace_embedded import containers, kubernetes
from streamspace_embedded.ports import free_port
from streamspace_embedded.postgres import FAST_AND_FORGETFUL, PostgresServer

K8S = Path(__file__).parents[3] / "deploy/k8s"
NOW = datetime(2030, 1, 1, tzinfo=UTC)

Files = dict[str, dict[str, str]]


def secrets(installation: Path, **more: Any) -> Files:
    """Holder -> file -> content, of what would be applied."""
    made = kubernetes.manifests(
        installation,
        namespace="streamspace",
        postgres=more.pop("postgres", kubernetes.Postgres("postgres.streamspace.svc:5432")),
        names=kubernetes.nats_names("streamspace", more.pop("nats_names", ())),
        now=more.pop("now", datetime.now(UTC)),
        **more,
    )
    return {
        each["metadata"]["name"].removesuffix("-secrets"): {
            name: base64.b64decode(data).decode() for name, data in each["data"].items()
        }
        for each in made["items"]
    }


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return secrets(tmp_path / "installation")


@pytest.fixture
def mounted(tmp_path: Path, files: Files) -> Path:
    """A folder per holder, as the pods see them."""
    for holder, contents in files.items():
        folder = tmp_path / "secrets" / holder
        folder.mkdir(parents=True)
        for name, content in contents.items():
            (folder / name).write_text(content)
    return tmp_path / "secrets"


class TlsServer(NatsServer):
    """One that says nothing before TLS."""

    def info(self) -> dict[str, Any]:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain,
            context.wrap_socket(plain) as connection,
        ):
            line = connection.makefile("rb").readline()
        found: dict[str, Any] = json.loads(line.removeprefix(b"INFO "))
        return found


def server(
    folder: Path, mounted: Path, variant: str, *, number: int = 0, routes: Any = ()
) -> NatsServer:
    """One server with the configuration of `deploy/k8s/nats/<variant>`."""
    port = free_port()
    text = (K8S / "nats" / variant / "nats.conf").read_text()
    places = {
        "$POD_NAME": f"nats-{number}",
        '"0.0.0.0:4222"': f'"127.0.0.1:{port}"',
        '"0.0.0.0:8222"': f'"127.0.0.1:{free_port()}"',
        '"/run/nats/nats.pid"': f'"{folder / "nats.pid"}"',
        '"/data"': f'"{folder / "data"}"',
        '"/data/accounts"': f'"{folder / "data/accounts"}"',
        '"0.0.0.0:8443"': f'"127.0.0.1:{free_port()}"',
        "/etc/nats/": f"{mounted / 'nats'}/",
        # Beside the configuration in a pod, which is one folder of both.
        "include accounts.conf": f"include {_relative(mounted / 'nats/accounts.conf', folder)}",
    }
    if routes:
        places['"0.0.0.0:6222"'] = f'"127.0.0.1:{routes[number]}"'
        for other, route in enumerate(routes):
            places[f"nats-{other}.nats-servers.streamspace.svc:6222"] = f"localhost:{route}"
    for written, here in places.items():
        assert written in text, written
        text = text.replace(written, here)
    return TlsServer(folder, config=text, port=port)


def _relative(path: Path, start: Path) -> str:
    return os.path.relpath(path, start)


@pytest.fixture
def single(tmp_path: Path, mounted: Path) -> Iterator[NatsServer]:
    nats = server(tmp_path / "nats", mounted, "single")
    nats.start()
    try:
        yield nats
    finally:
        nats.stop()


async def connect(mounted: Path, service: str, *servers: NatsServer | int) -> Bus:
    ports = [each if isinstance(each, int) else each.port for each in servers]
    return await Bus.connect(
        ",".join(f"tls://localhost:{port}" for port in ports),
        name=service,
        credentials=mounted / service / "nats.creds",
        ca_file=mounted / service / "ca.crt",
        inbox=SERVICES[service].inbox,
    )


async def test_each_service_reaches_the_bus_by_tls(mounted: Path, single: NatsServer) -> None:
    for service in SERVICES:
        bus = await connect(mounted, service, single)
        assert bus.connected, service
        await bus.close()


async def test_the_session_service_makes_the_streams(mounted: Path, single: NatsServer) -> None:
    bus = await connect(mounted, "session", single)
    await provision(bus)
    assert await bus.last_sequence(EVENTS.name) == 0
    await bus.close()


async def test_nobody_reaches_the_bus_without_tls(mounted: Path, single: NatsServer) -> None:
    with structlog.testing.capture_logs() as logs:
        await never_connects(single.url, mounted, "session", ca=True)
    assert not any(line["event"] == "bus.connected" for line in logs)


async def test_a_server_of_another_installation_is_not_believed(
    mounted: Path, single: NatsServer, tmp_path: Path
) -> None:
    other = secrets(tmp_path / "other")
    (mounted / "session" / "ca.crt").write_text(other["session"]["ca.crt"])
    await never_connects(f"tls://localhost:{single.port}", mounted, "session", ca=True)


async def test_a_server_is_believed_by_its_own_name_only(mounted: Path, single: NatsServer) -> None:
    await never_connects(f"tls://127.0.0.1:{single.port}", mounted, "session", ca=True)


async def test_a_plain_server_is_told_nothing(mounted: Path, nats_server: NatsServer) -> None:
    """Whoever is in between could pretend that there is no TLS."""
    await never_connects(f"tls://localhost:{nats_server.port}", mounted, "session", ca=True)
    assert "session" not in nats_server.log


async def test_a_failed_handshake_is_tried_again(
    mounted: Path, tmp_path: Path, nats_server: NatsServer
) -> None:
    """A server that is too busy to answer in time, or has not got its certificate yet."""
    secured = server(tmp_path / "nats", mounted, "single")
    secured.start()
    targets = [nats_server.port, nats_server.port, secured.port]
    tries: list[int] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(targets[min(len(tries), 2)])
        inner, outer = await asyncio.open_connection("127.0.0.1", tries[-1])
        await asyncio.gather(pipe(reader, outer), pipe(inner, writer), return_exceptions=True)

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as front:
        port = front.sockets[0].getsockname()[1]
        bus = await connect(mounted, "session", port)
        assert tries == targets
        for _ in range(2):  # the connection it has is lost, and then a handshake
            targets[:2] = [nats_server.port] * 2
            tries.clear()
            secured.restart()
            await eventually(lambda: len(tries) >= 3 and bus.connected, timeout=40)
        await bus.close()
    secured.stop()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def never_connects(url: str, mounted: Path, service: str, *, ca: bool) -> None:
    with structlog.testing.capture_logs() as logs:
        connecting = asyncio.create_task(
            Bus.connect(
                url,
                name=service,
                credentials=mounted / service / "nats.creds",
                ca_file=mounted / service / "ca.crt" if ca else None,
                inbox=SERVICES[service].inbox,
            )
        )
        await eventually(lambda: any(line["event"] == "bus.waiting_for_server" for line in logs))
        assert not connecting.done()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting


async def test_three_servers_keep_what_was_published_when_one_dies(
    mounted: Path, tmp_path: Path
) -> None:
    routes = [free_port() for _ in range(3)]
    servers = [
        server(tmp_path / f"nats-{number}", mounted, "cluster", number=number, routes=routes)
        for number in range(3)
    ]
    with ExitStack() as stack:
        for each in servers:
            each.start()
            stack.callback(each.stop)
        bus = await connect(mounted, "session", *servers)
        await patiently(lambda: provision(bus, num_replicas=3))
        for stream in STREAMS:
            info = await bus.link.api(f"STREAM.INFO.{stream.name}")
            assert info["config"]["num_replicas"] == 3
            assert len(info["cluster"]["replicas"]) == 2
        await publish(bus, "first")
        servers[0].kill()
        await publish(bus, "second")
        servers[0].start()
        await publish(bus, "third")
        subjects = []
        async for message in bus.tail(EVENTS.name, ["evt.core.session.>"], start=StartAt.all()):
            subjects.append(message.subject)
            if len(subjects) == 3:
                break
        assert subjects == [
            f"evt.core.session.{name}.created" for name in ("first", "second", "third")
        ]
        await bus.close()


async def test_streams_go_to_a_file_and_come_back_to_a_new_server(
    mounted: Path, single: NatsServer, tmp_path: Path
) -> None:
    """As docs/how-to/back-up-and-restore.md says, with what lies in the installation's folder."""
    bus = await connect(mounted, "session", single)
    await provision(bus)
    await publish(bus, "first")
    await bus.close()
    streamspace(tmp_path, single, "backup", "ops")
    single.kill()
    other = server(tmp_path / "other", mounted, "single")
    other.start()
    try:
        streamspace(tmp_path, other, "restore", "restore")
        bus = await connect(mounted, "session", other)
        await provision(bus)
        assert await bus.last_sequence(EVENTS.name) == 1
        await bus.close()
    finally:
        other.stop()


def streamspace(folder: Path, nats: NatsServer, command: str, role: str) -> None:
    secrets = folder / "installation/secrets"
    subprocess.run(
        [
            str(Path(sys.executable).parent / "streamspace"), command, "streams",
            "--file", str(folder / "streams"), "--nats-url", f"tls://localhost:{nats.port}",
            "--nats-ca", str(secrets / "ca.crt"), "--nats-creds", str(secrets / f"{role}.creds"),
        ],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


async def publish(bus: Bus, name: str) -> None:
    """With its own id, so that a retry is stored once."""
    await patiently(
        lambda: bus.publish(f"evt.core.session.{name}.created", b"{}", {"Nats-Msg-Id": name})
    )


async def patiently(ask: Any) -> None:
    """A cluster that elects a leader refuses for a moment."""

    async def done() -> bool:
        try:
            await ask()
        except BusError:
            return False
        return True

    await eventually(done, timeout=40)


# ---- Secrets ---------------------------------------------------------------------------------------------


def test_a_second_run_makes_the_same_secrets(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "streamspace_embedded.containers", "kubernetes",
        "--installation", str(tmp_path), "--nats-name", "nats.example.org",
    ]  # fmt: skip
    first, second = (
        subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2)
    )
    assert first == second
    assert json.loads(first)["kind"] == "List"


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("certificates", {"nats/tls.crt", "nats/tls.key"}),
        ("cookie-key", {"vnc-proxy/cookie_key"}),
        (
            "credentials",
            {
                *(f"{service}/nats.creds" for service in SERVICES),
                "auth/bus-accounts.creds",
            },
        ),
        (
            "database-passwords",
            {
                *(f"{service}/database_url" for service in ("auth", "session", "catalog-sync")),
                *(f"databases/{name}" for name in ("auth", "session", "catalog")),
            },
        ),
    ],
)
def test_only_what_is_to_be_renewed_is_renewed(
    what: str, changed: set[str], tmp_path: Path, files: Files
) -> None:
    after = secrets(tmp_path / "installation", renew=[what])
    assert differences(files, after) == changed
    assert differences(after, secrets(tmp_path / "installation")) == set()


def differences(before: Files, after: Files) -> set[str]:
    assert {holder: set(each) for holder, each in before.items()} == {
        holder: set(each) for holder, each in after.items()
    }
    return {
        f"{holder}/{name}"
        for holder, contents in after.items()
        for name, content in contents.items()
        if before[holder][name] != content
    }


def test_certificates_are_renewed_before_they_end_and_by_the_same_authority(tmp_path: Path) -> None:
    first = secrets(tmp_path, now=NOW)
    assert differences(first, secrets(tmp_path, now=NOW + timedelta(days=365))) == set()
    later = secrets(tmp_path, now=NOW + timedelta(days=600))
    assert differences(first, later) == {"nats/tls.crt", "nats/tls.key"}


def test_another_name_for_the_bus_makes_another_certificate(tmp_path: Path) -> None:
    first = secrets(tmp_path)
    later = secrets(tmp_path, nats_names=["nats.example.org"])
    assert differences(first, later) == {"nats/tls.crt", "nats/tls.key"}


def test_no_private_key_and_no_password_has_two_holders(files: Files) -> None:
    seen: dict[str, str] = {}
    shared = {"ca.crt", "password"}  # the latter PostgreSQL's own, which makes the databases
    for holder, contents in files.items():
        for name, content in contents.items():
            if name in shared or holder == "databases":
                continue
            assert content not in seen, (holder, name, seen.get(content))
            seen[content] = f"{holder}/{name}"
    assert not any(
        "BEGIN PRIVATE KEY" in each["ca.crt"] for each in files.values() if "ca.crt" in each
    )


def test_the_folder_is_for_its_owner_alone(tmp_path: Path, files: Files) -> None:
    for path in (tmp_path / "installation" / "secrets").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_postgresql_elsewhere_is_verified_and_ours_is_not_made(tmp_path: Path) -> None:
    for authorities, roots in ((None, "system"), ("PEM", "/secrets/postgres-ca.crt")):
        elsewhere = kubernetes.Postgres(
            "db.example.org:5432", outside=True, authorities=authorities
        )
        made = secrets(tmp_path, postgres=elsewhere)
        url = made["auth"]["database_url"].strip()
        assert url.endswith(f"@db.example.org:5432/auth?sslmode=verify-full&sslrootcert={roots}")
        assert not {"postgres", "databases"} & set(made)
        assert ("postgres-ca.crt" in made["auth"]) == (authorities is not None)
        assert "postgres-ca.crt" not in made["gateway"]


# ---- Databases -------------------------------------------------------------------------------------------


async def test_an_administrator_without_all_rights_makes_the_databases(
    mounted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As managed servers have them: may make roles and databases, is no superuser."""
    postgres = PostgresServer(tmp_path / "postgres", settings=FAST_AND_FORGETFUL)
    postgres.start()
    try:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute(
            "CREATE ROLE boss LOGIN CREATEROLE CREATEDB PASSWORD 'long enough'"
        )
        await connection.close()
        url = postgres.url_for("postgres", "boss", "long enough")
        for _ in range(2):
            run_databases(monkeypatch, url, mounted / "databases")
        password = (mounted / "databases/session").read_text().strip()
        connection = await asyncpg.connect(postgres.url_for("session", "session", password))
        await connection.execute("CREATE TABLE mine (id integer)")
        await connection.close()
    finally:
        postgres.stop()


def run_databases(monkeypatch: pytest.MonkeyPatch, url: str, passwords: Path) -> None:
    subprocess.run(
        [
            sys.executable, "-m", "streamspace_embedded.containers", "databases",
            "--passwords", str(passwords),
        ],
        check=True, capture_output=True, text=True, timeout=60,
        env={**os.environ, containers.ADMIN_URL: url},
    )  # fmt: skip
