"""The agents' ingress as it runs: TLS, its certificate, and connections that go on behind it."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamspace_common.runtime.supervisor import FatalError, Supervisor
from streamspace_common.testing.waiting import eventually
from streamspace_embedded import certificates
from streamspace_embedded.ports import free_port
from streamspace_vnc_proxy.agent_ingress.certificate import Certificate
from streamspace_vnc_proxy.agent_ingress.main import Running, start
from streamspace_vnc_proxy.agent_ingress.settings import AgentIngressSettings

NOW = datetime.now(UTC)
AUTHORITY = certificates.new_authority(NOW)
TRUST = ssl.create_default_context(cadata=AUTHORITY.certificate)
LARGE = os.urandom(3 * 1024 * 1024)


def write(folder: Path, names: list[str]) -> None:
    pair = certificates.new_server(AUTHORITY, names, NOW)
    (folder / "tls.key").write_text(pair.key)
    (folder / "tls.crt").write_text(pair.certificate)


@pytest_asyncio.fixture
async def behind() -> AsyncIterator[int]:
    """What stands behind it: echoes, and says first what it was asked."""

    async def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        headers = connection.request.headers
        await connection.send(f"{connection.request.path} {headers['X-Forwarded-For']}")
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, compression=None, max_size=None) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@pytest_asyncio.fixture
async def ingress(tmp_path: Path, behind: int) -> AsyncIterator[Running]:
    write(tmp_path, ["localhost"])
    supervisor = Supervisor("agent-ingress", drain_timeout=10)
    running = await start(
        AgentIngressSettings(
            listen_port=0,
            certificate_file=tmp_path / "tls.crt",
            key_file=tmp_path / "tls.key",
            bus_address=f"127.0.0.1:{behind}",
            relay_address=f"127.0.0.1:{free_port()}",
        ),
        supervisor,
    )
    task = asyncio.create_task(supervisor.run())
    yield running
    supervisor.stop()
    await task


def url(ingress: Running, path: str = "/bus", host: str = "localhost") -> str:
    return f"wss://{host}:{ingress.port}{path}"


async def test_bytes_go_through_both_ways_whole(ingress: Running) -> None:
    async with connect(
        url(ingress), ssl=TRUST, compression=None, max_size=None, proxy=None
    ) as there:
        assert await there.recv() == "/bus 127.0.0.1"
        for message in (b"", b"x", LARGE):
            await there.send(message)
            assert await there.recv() == message


async def test_what_is_behind_it_may_be_away(ingress: Running) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(url(ingress, "/tunnels/one"), ssl=TRUST, proxy=None)
    assert refused.value.response.status_code == 502


async def metric(ingress: Running, name: str, **labels: str) -> float:
    """As Prometheus reads it."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        page = await client.get(f"http://127.0.0.1:{ingress.health_port}/metrics")
    for family in text_string_to_metric_families(page.text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise AssertionError(f"no {name}{labels}")


async def test_operators_see_what_passes_and_what_is_refused(ingress: Running) -> None:
    name = "streamspace_ingress_connections"
    async with connect(url(ingress), ssl=TRUST, proxy=None) as connection:
        await connection.recv()
        assert await metric(ingress, name, to="bus") == 1
        assert await metric(ingress, name, to="tunnels") == 0

    async def none_left() -> bool:
        return await metric(ingress, name, to="bus") == 0

    await eventually(none_left)
    refused = "streamspace_ingress_refused_total"
    before = {
        reason: await metric(ingress, refused, reason=reason)
        for reason in ("unknown", "unreachable", "upgrade")
    }
    for path in ("/tunnels/one", "/nothing", "/nothing"):
        with pytest.raises(InvalidStatus):
            await connect(url(ingress, path), ssl=TRUST, proxy=None)
    async with httpx2.AsyncClient(trust_env=False, verify=TRUST) as client:
        assert (await client.get(f"https://localhost:{ingress.port}/bus")).status_code == 426
    grown = {"unknown": 2, "unreachable": 1, "upgrade": 1}
    for reason, by in grown.items():
        assert await metric(ingress, refused, reason=reason) == before[reason] + by


async def test_operators_see_when_the_certificate_ends(ingress: Running, tmp_path: Path) -> None:
    name = "streamspace_ingress_certificate_expiry_timestamp_seconds"
    lifetime = certificates.SERVER_LIFETIME
    assert await metric(ingress, name) == int((NOW + lifetime).timestamp())
    later = NOW + timedelta(days=10)
    pair = certificates.new_server(AUTHORITY, ["localhost"], later)
    (tmp_path / "tls.key").write_text(pair.key)
    (tmp_path / "tls.crt").write_text(pair.certificate)
    ingress.certificate.look()
    assert await metric(ingress, name) == int((later + lifetime).timestamp())


async def test_a_newer_certificate_is_taken_up_and_open_connections_stay(
    ingress: Running, tmp_path: Path
) -> None:
    async with connect(url(ingress), ssl=TRUST, proxy=None) as before:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(url(ingress, host="127.0.0.1"), ssl=TRUST, proxy=None)
        write(tmp_path, ["127.0.0.1"])
        ingress.certificate.look()
        async with connect(url(ingress, host="127.0.0.1"), ssl=TRUST, proxy=None) as after:
            assert await after.recv() == "/bus 127.0.0.1"
        assert await before.recv() == "/bus 127.0.0.1"
        await before.send(b"still here")
        assert await before.recv() == b"still here"


@pytest.mark.parametrize("half", ["tls.crt", "tls.key"])
async def test_half_of_a_newer_certificate_changes_nothing(
    ingress: Running, tmp_path: Path, half: str
) -> None:
    newer = certificates.new_server(AUTHORITY, ["localhost"], NOW)
    (tmp_path / half).write_text(newer.certificate if half == "tls.crt" else newer.key)
    ingress.certificate.look()
    async with connect(url(ingress), ssl=TRUST, proxy=None) as connection:
        assert await connection.recv() == "/bus 127.0.0.1"
    (tmp_path / half).unlink()
    ingress.certificate.look()
    async with connect(url(ingress), ssl=TRUST, proxy=None) as connection:
        assert await connection.recv() == "/bus 127.0.0.1"


async def test_a_handshake_that_is_broken_off_is_no_error_of_ours(
    ingress: Running, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(url(ingress), ssl=ssl.create_default_context(), proxy=None)
        _, writer = await asyncio.open_connection("localhost", ingress.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        writer.close()
    # Whoever comes next is served after them.
    async with connect(url(ingress), ssl=TRUST, proxy=None) as connection:
        assert await connection.recv() == "/bus 127.0.0.1"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_connections_end_with_it(tmp_path: Path, behind: int) -> None:
    write(tmp_path, ["localhost"])
    supervisor = Supervisor("agent-ingress", drain_timeout=10)
    settings = AgentIngressSettings(
        listen_port=0,
        certificate_file=tmp_path / "tls.crt",
        key_file=tmp_path / "tls.key",
        bus_address=f"127.0.0.1:{behind}",
    )
    running = await start(settings, supervisor)
    task = asyncio.create_task(supervisor.run())
    async with connect(url(running), ssl=TRUST, proxy=None) as connection:
        assert await connection.recv() == "/bus 127.0.0.1"
        supervisor.stop()
        await task
        with pytest.raises(ConnectionClosed):
            await connection.recv()


def test_a_certificate_that_is_no_good_is_a_clear_end(tmp_path: Path) -> None:
    write(tmp_path, ["localhost"])
    other = certificates.new_server(AUTHORITY, ["localhost"], NOW)
    (tmp_path / "other.key").write_text(other.key)
    with pytest.raises(FatalError, match=r"other\.key are no good"):
        Certificate(tmp_path / "tls.crt", tmp_path / "other.key")
    with pytest.raises(FatalError, match=r"No such file"):
        Certificate(tmp_path / "tls.crt", tmp_path / "nowhere.key")
