"""Connections to PostgreSQL are encrypted, and the server verified, where the URL says so.

The wheel's PostgreSQL is built without TLS. In front of it stands a few lines that speak
it as PostgreSQL does: whoever asks with the first packet is answered `S`, and goes on
with TLS; whoever does not is turned away.
"""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from streamspace_common.bus import Bus
from streamspace_common.store.engine import Database
from streamspace_common.store.errors import StoreUnavailableError
from streamspace_common.store.migrate import migrate
from streamspace_common.store.outbox_relay import OutboxRelay
from streamspace_common.testing.postgres import PostgresServer
from streamspace_common.testing.waiting import eventually
from streamspace_embedded import certificates

SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@dataclass
class Secured:
    """A PostgreSQL that is reached by TLS only, as `localhost`; `roots` vouch for it."""

    plain_url: str
    port: int
    roots: Path

    def url(self, query: str = "", host: str = "localhost") -> str:
        credentials, _, rest = self.plain_url.rpartition("@")
        return f"{credentials}@{host}:{self.port}/{rest.partition('/')[2]}?{query}"


@pytest_asyncio.fixture
async def secured(
    tmp_path: Path, database_url: str, postgres_server: PostgresServer
) -> AsyncIterator[Secured]:
    now = datetime.now(UTC)
    authority = certificates.new_authority(now)
    pair = certificates.new_server(authority, ["localhost"], now)
    for name, content in (
        ("roots.crt", authority.certificate),
        ("s.crt", pair.certificate),
        ("s.key", pair.key),
    ):
        (tmp_path / name).write_text(content)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "s.crt", tmp_path / "s.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST:
                writer.write(b"S")
                await writer.start_tls(context)
                inner, outer = await asyncio.open_connection("127.0.0.1", postgres_server.port)
                await asyncio.gather(pipe(reader, outer), pipe(inner, writer))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    front = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Secured(database_url, front.sockets[0].getsockname()[1], tmp_path / "roots.crt")
    finally:
        front.close()
        await front.wait_closed()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_a_verified_server_is_used(secured: Secured) -> None:
    database = Database.connect(secured.url(f"sslmode=verify-full&sslrootcert={secured.roots}"))
    assert await database.ping()
    await database.dispose()


@pytest.mark.parametrize(
    ("query", "host"),
    [
        ("sslmode=verify-full&sslrootcert={roots}", "127.0.0.1"),
        ("sslmode=verify-full", "localhost"),
        ("sslmode=disable", "localhost"),
    ],
    ids=["another name", "nobody vouches for it", "in plain"],
)
async def test_otherwise_it_is_not(secured: Secured, query: str, host: str) -> None:
    database = Database.connect(secured.url(query.format(roots=secured.roots), host))
    with pytest.raises(StoreUnavailableError):
        async with database.transaction():
            pass
    await database.dispose()


async def test_migrations_and_the_outbox_are_encrypted_too(secured: Secured, bus: Bus) -> None:
    url = secured.url(f"sslmode=verify-full&sslrootcert={secured.roots}")
    await migrate(url, "streamspace_sample")
    database = Database.connect(url)
    relay = OutboxRelay(database, bus)
    running = asyncio.create_task(relay.run())
    await eventually(lambda: relay.active)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await database.dispose()
