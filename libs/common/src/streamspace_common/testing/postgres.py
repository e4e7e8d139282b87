"""A real PostgreSQL for tests: one server per worker, a fresh database per test.

A test folder that tests a service overrides `migrations_package`; its databases are
then copies of one that the service's own migrations made, which costs milliseconds.
The server forgets on power loss but not on `kill`, so tests may kill and restart it.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from streamspace_common.store.engine import Database
from streamspace_common.store.migrate import migrate
from streamspace_embedded.postgres import FAST_AND_FORGETFUL
from streamspace_embedded.postgres import PostgresServer as EmbeddedPostgres


class PostgresServer(EmbeddedPostgres):
    """The embedded server, able to make databases."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, settings=FAST_AND_FORGETFUL)
        self._templates: dict[str, str] = {}

    async def create_database(self, package: str | None = None) -> str:
        """A new database, with the migrations of `package`; returns its URL."""
        template = await self._template(package) if package else "template1"
        name = f"test_{uuid4().hex}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url_for(name)

    async def drop_database(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        await self._execute(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')

    async def _template(self, package: str) -> str:
        if package not in self._templates:
            name = f"template_{package}"
            await self._execute(f'CREATE DATABASE "{name}"')
            await migrate(self.url_for(name), package)
            self._templates[package] = name
        return self._templates[package]

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for all tests of this worker. Whoever stops it starts it again."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    folder = Path(tempfile.mkdtemp(prefix=f"streamspace-postgres-{worker}-"))
    server = PostgresServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrations_package() -> str | None:
    """Whose migrations `database_url` has; None for an empty database."""
    return None


@pytest_asyncio.fixture
async def database_url(
    postgres_server: PostgresServer, migrations_package: str | None
) -> AsyncIterator[str]:
    """The URL of a database of this test alone."""
    postgres_server.start()  # a test before this one may have left it stopped
    url = await postgres_server.create_database(migrations_package)
    yield url
    postgres_server.start()
    await postgres_server.drop_database(url)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """`Database` on `database_url`."""
    database = Database.connect(database_url, pool_size=5, application="tests")
    yield database
    await database.dispose()
