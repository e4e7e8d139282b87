"""An enrolment brings the certificates that the agent has to trust: one file is all it needs."""

import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.server import ServerConnection, serve

from streamspace_agent.enrolment import from_file, join
from streamspace_agent.tunnels import dialling
from streamspace_auth.enrolment import NatsEnroller, Place, read_authorities
from streamspace_auth.sealing import Seal
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.runtime.supervisor import FatalError
from streamspace_common.testing.waiting import eventually
from streamspace_embedded import certificates

LAB = ClusterId("lab")


@pytest.fixture
def authorities(tmp_path: Path) -> Path:
    """Those of an installation, with a certificate for `localhost` beside them."""
    now = datetime.now(UTC)
    authority = certificates.new_authority(now)
    pair = certificates.new_server(authority, ["localhost"], now)
    (tmp_path / "server.pem").write_text(pair.certificate + pair.key)
    (tmp_path / "ca.crt").write_text(authority.certificate)
    return tmp_path / "ca.crt"


@pytest_asyncio.fixture
async def relay(authorities: Path) -> AsyncIterator[str]:
    async def silent(connection: ServerConnection) -> None:
        await connection.wait_closed()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authorities.with_name("server.pem"))
    async with serve(silent, "127.0.0.1", 0, ssl=context, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"wss://localhost:{port}/tunnels/one"


def enrolment_file(folder: Path, authorities: str | None) -> Path:
    enroller = NatsEnroller(
        Seal(bytes(32)),
        place=Place(("tls://nats.example.org:4222",), "wss://streams.example.org"),
        certificate_authorities=authorities,
    )
    path = folder / "enrolment.json"
    path.write_bytes(enroller.mint(LAB, datetime.now(UTC), account=None).enrolment.to_json())
    return path


async def test_the_agent_dials_a_relay_that_its_enrolment_vouches_for(
    tmp_path: Path, authorities: Path, relay: str
) -> None:
    path = enrolment_file(tmp_path, read_authorities(authorities))
    membership = join(from_file(path), tmp_path / "state")
    assert membership.ca_file is not None
    assert membership.ca_file.read_text() == authorities.read_text()
    assert membership.ca_file.stat().st_mode & 0o077 == 0
    leg = await dialling(membership.ca_file)(relay, {}, 5.0)
    leg.close()
    await eventually(lambda: leg.ending is not None)


def test_certificates_that_cannot_be_kept_are_a_clear_end(
    tmp_path: Path, authorities: Path
) -> None:
    (tmp_path / "state").write_text("a file, where a folder should be")
    path = enrolment_file(tmp_path, read_authorities(authorities))
    with pytest.raises(FatalError, match="STREAMSPACE_AGENT_STATE_DIR"):
        join(from_file(path), tmp_path / "state")


async def test_it_dials_no_other_one(tmp_path: Path, relay: str) -> None:
    membership = join(from_file(enrolment_file(tmp_path, None)), tmp_path / "state")
    assert membership.ca_file is None
    with pytest.raises(OSError, match="certificate"):
        await dialling(membership.ca_file)(relay, {}, 5.0)


def test_an_enrolment_that_moved_brings_its_certificates_along(authorities: Path) -> None:
    seal = Seal(bytes(32))
    before = NatsEnroller(seal, place=Place(("nats://a",), "ws://a"))
    after = NatsEnroller(seal, place=Place(("tls://b",), "wss://b"), certificate_authorities="PEM")
    moved = after.relocated(before.mint(LAB, datetime.now(UTC), account=None).enrolment)
    assert (moved.nats_urls, moved.certificate_authorities) == (("tls://b",), "PEM")


def test_certificates_that_cannot_be_read_are_a_clear_end(tmp_path: Path) -> None:
    assert read_authorities(None) is None
    with pytest.raises(FatalError, match=r"nowhere\.crt"):
        read_authorities(tmp_path / "nowhere.crt")
