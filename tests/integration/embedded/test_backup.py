"""The commands of docs/how-to/back-up-and-restore.md bring the databases back."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from streamspace_common.store.migrate import migrate
from streamspace_embedded import containers, databases, trust
from streamspace_embedded.layout import Layout
from streamspace_embedded.postgres import FAST_AND_FORGETFUL, PostgresServer, binaries

PAGE = (Path(__file__).parents[3] / "docs/how-to/back-up-and-restore.md").read_text()
PACKAGES = {
    "auth": "streamspace_auth",
    "session": "streamspace_session",
    "catalog": "streamspace_catalog_sync",
}


def told(program: str) -> list[str]:
    """The program's arguments in the page, behind `kubectl exec`."""
    match = re.search(rf"-- ({program} .*?)(?: [<>].*)?$", PAGE, flags=re.MULTILINE)
    assert match is not None, program
    return shlex.split(match[1])


def run(postgres: PostgresServer, program: str, name: str, **streams: Any) -> None:
    command = [word.replace("$name", name) for word in told(program)]
    subprocess.run(
        [str(binaries() / command[0]), "--host=127.0.0.1", f"--port={postgres.port}", *command[1:]],
        check=True, timeout=60, env={"PGPASSWORD": postgres.password, "LC_ALL": "C.UTF-8"},
        **streams,
    )  # fmt: skip


@pytest.fixture
def passwords(tmp_path: Path) -> dict[str, str]:
    Layout(tmp_path).secrets.mkdir(parents=True)
    return trust.load(Layout(tmp_path)).database_passwords


async def test_databases_come_back_with_their_owners(
    tmp_path: Path, passwords: dict[str, str]
) -> None:
    assert containers.SUPERUSER in " ".join(told("pg_dump"))
    before = PostgresServer(tmp_path / "before", settings=FAST_AND_FORGETFUL)
    before.start()
    try:
        await databases.prepare(before.url, passwords)
        for name, package in PACKAGES.items():
            await migrate(before.url_for(name, name, passwords[name]), package)
            await execute(before, name, passwords, "CREATE TABLE kept AS SELECT 7 AS number")
            with (tmp_path / f"{name}.dump").open("wb") as file:
                run(before, "pg_dump", name, stdout=file)
    finally:
        before.stop()
    after = PostgresServer(tmp_path / "after", settings=FAST_AND_FORGETFUL)
    after.start()
    try:
        await databases.prepare(after.url, passwords)
        for _ in range(2):  # the second time into one that is in use
            for name, package in PACKAGES.items():
                with (tmp_path / f"{name}.dump").open("rb") as file:
                    run(after, "pg_restore", name, stdin=file)
                await migrate(after.url_for(name, name, passwords[name]), package)
                await execute(after, name, passwords, "UPDATE kept SET number = 8 WHERE number = 7")
                assert await foreign_tables(after, name, passwords) == []
    finally:
        after.stop()


async def execute(
    postgres: PostgresServer, name: str, passwords: dict[str, str], statement: str
) -> None:
    connection = await asyncpg.connect(postgres.url_for(name, name, passwords[name]))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def foreign_tables(
    postgres: PostgresServer, name: str, passwords: dict[str, str]
) -> list[str]:
    """Tables that the service could not migrate, for they are somebody else's."""
    connection = await asyncpg.connect(postgres.url_for(name, name, passwords[name]))
    try:
        rows = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tableowner <> $1", name
        )
        return [row["tablename"] for row in rows]
    finally:
        await connection.close()
