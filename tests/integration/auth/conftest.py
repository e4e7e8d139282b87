"""Fixtures of the auth service's integration tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.auth.installation import Installation


@pytest.fixture(scope="session")
def migrations_package() -> str:
    return "streamspace_auth"


@pytest_asyncio.fixture
async def bare(tmp_path: Path, database_url: str) -> AsyncIterator[Installation]:
    """Servers only: no replica, no user."""
    installation = Installation(tmp_path, database_url)
    yield installation
    await installation.stop()


@pytest_asyncio.fixture
async def auth(bare: Installation) -> Installation:
    """One replica, and its admin signed in."""
    await bare.start()
    return bare
