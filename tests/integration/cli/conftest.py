"""A NATS server in operator mode, and connections with an operator's credentials."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from streamspace_common.bus import Bus, Streams, credentials, provision
from streamspace_common.contracts.permissions import OPERATORS, SERVICES
from streamspace_common.testing.nats import NatsServer
from streamspace_embedded.ports import free_port

Connect = Callable[[str], Awaitable[Bus]]


@pytest.fixture
def trust() -> credentials.Trust:
    return credentials.Trust.new()


@pytest.fixture
def server(tmp_path: Path, trust: credentials.Trust) -> Iterator[NatsServer]:
    port, folder = free_port(), tmp_path / "nats"
    config = credentials.server_config(trust, port=port, store_dir=folder / "store")
    running = NatsServer(folder, config=config, port=port)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def creds(tmp_path: Path, trust: credentials.Trust) -> Callable[[str], Path]:
    """The credentials file of a service's or an operator's role."""

    def write(role: str) -> Path:
        path = tmp_path / f"{role}.creds"
        if role in OPERATORS:
            path.write_text(credentials.operator_credentials(trust.services, role))
        else:
            path.write_text(credentials.service_credentials(trust.services, role))
        return path

    return write


@pytest.fixture
async def connect(server: NatsServer, creds: Callable[[str], Path]) -> AsyncIterator[Connect]:
    opened: list[Bus] = []

    async def connect_as(role: str) -> Bus:
        bus = await Bus.connect(
            server.url,
            name=role,
            credentials=creds(role),
            inbox={**OPERATORS, **SERVICES}[role].inbox,
        )
        opened.append(bus)
        return bus

    yield connect_as
    for bus in opened:
        await bus.close()


@pytest.fixture
async def session(connect: Connect) -> Bus:
    """As the session service, which makes the streams."""
    bus = await connect("session")
    await provision(bus)
    return bus


@pytest.fixture
async def ops(session: Bus, connect: Connect) -> Streams:
    return Streams(await connect("ops"))
