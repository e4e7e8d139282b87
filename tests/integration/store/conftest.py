"""A service with nothing but the store's own tables, made for these tests.

Nothing is mocked but the bus: the databases are real and migrated by the real
migration runner.
"""

import textwrap
from pathlib import Path

import pytest

SAMPLE = "streamspace_sample"

FIRST = """
    from alembic import op
    from streamspace_common.store.tables import add_inbox, add_outbox

    revision = "0001"
    down_revision = None

    def upgrade() -> None:
        add_outbox(op)
        add_inbox(op)
"""


def write_migration(package: Path, name: str, text: str) -> None:
    (package / "migrations" / "versions" / f"{name}.py").write_text(textwrap.dedent(text))


@pytest.fixture(scope="session")
def sample_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packages")
    package = root / SAMPLE
    (package / "migrations" / "versions").mkdir(parents=True)
    (package / "__init__.py").touch()
    write_migration(package, "0001_first", FIRST)
    return package


@pytest.fixture(scope="session")
def migrations_package(sample_package: Path) -> str:
    import sys

    sys.path.insert(0, str(sample_package.parent))
    return SAMPLE
