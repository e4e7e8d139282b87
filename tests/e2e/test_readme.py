"""Every command of README.md, run as it stands there.

The commands are taken from the text itself: one that is added is run too, or fails the
first test here. Three things differ from what a reader does. The address
`localhost:8080` becomes the test's own port; `make up` gets ports and a data folder by
its variables; and the commands run in a folder that looks like a clone (`.venv`,
`.streamspace`) and is not this one. `make test` cannot run inside itself: that its
recipe exists and what it would run is all that is tested.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from dulwich import porcelain
from tests.support.stack import (
    ADMIN_PASSWORD,
    FINAL,
    REPOSITORY,
    Api,
    Stack,
    sign_in,
    wait_until_ready,
)

from streamspace_common.testing.waiting import eventually
from streamspace_embedded.ports import free_port

BLOCKS = [
    block.strip()
    for block in re.findall(
        r"^```sh\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
]
MAKE = [block for block in BLOCKS if block.startswith("make ")]
SCRIPT = [line for block in BLOCKS if block not in MAKE for line in block.splitlines()]
TEMPLATE = """\
apiVersion: stream.space/v1alpha1
kind: Template
metadata: {name: team-terminal}
spec:
  displayName: Team terminal
  description: A terminal of our own.
  category: Development
  process: {command: [xterm]}
  vnc: {enabled: true}
"""

pytestmark = pytest.mark.timeout(400)


def environment(**more: str) -> dict[str, str]:
    """This process' own, without what would change the commands."""
    ours = re.compile(r"STREAMSPACE_|MAKE|MFLAGS|T$", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not ours.match(name)}
    return kept | {"NO_PROXY": "localhost,127.0.0.1", "no_proxy": "localhost,127.0.0.1"} | more


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme") / "streamspace"
    (folder / ".streamspace").mkdir(parents=True)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    return folder


@pytest.fixture(scope="module")
def up(clone: Path) -> Iterator[Stack]:
    """`make up`, in the repository, with everything else of its own."""
    port, data, log = free_port(), clone / ".streamspace", clone.parent / "make-up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", MAKE[0]],
            cwd=REPOSITORY,
            env=environment(
                PORT=str(port),
                STREAM_PORT=str(free_port()),
                DATA=str(data),
                STREAMSPACE_ADMIN_PASSWORD=ADMIN_PASSWORD,
                STREAMSPACE_NO_APT="1",
            ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Stack(process, data, f"http://127.0.0.1:{port}", log)
    try:
        asyncio.run(wait_until_ready(running, 300))
        yield running
    finally:
        end_group(process, signal.SIGINT)
    assert "Stopping" in log.read_text()


def end_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """As Ctrl-C does: to the command and all it started in the foreground."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        raise


@pytest.fixture
async def admin(up: Stack) -> AsyncIterator[Api]:
    async with httpx2.AsyncClient(base_url=up.url, timeout=30, trust_env=False) as client:
        yield await sign_in(client, "admin", ADMIN_PASSWORD)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    folder = tmp_path / "catalog"
    folder.mkdir()
    (folder / "team-terminal.yaml").write_text(TEMPLATE)
    with porcelain.init(folder) as repository:
        porcelain.add(repository, [folder / "team-terminal.yaml"])
        porcelain.commit(repository, message=b"one", author=b"a <a@b>", committer=b"a <a@b>")
    return folder


@pytest.fixture
def commands(up: Stack, clone: Path, catalog: Path) -> Iterator[subprocess.Popen[bytes]]:
    """All commands but `make`, in the order of the README, in one shell."""
    here = "\n".join(SCRIPT).replace("localhost:8080", up.url.removeprefix("http://"))
    with (clone.parent / "commands.log").open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", here],
            cwd=clone,
            env=environment(
                PASSWORD=ADMIN_PASSWORD,
                CATALOG_URL=str(catalog),
                XDG_CONFIG_HOME=str(clone.parent / "config"),
                STREAMSPACE_AGENT_ON_EXIT="stop",  # nothing is left of a test that fails
            ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end_group(process, signal.SIGTERM)


def test_no_command_is_left_out() -> None:
    assert MAKE == ["make up", "make test"], "a new make command needs a test of its own"
    assert SCRIPT[-1].endswith("streamspace-agent"), "what follows the agent would never be run"
    assert all("streamspace-agent" not in line for line in SCRIPT[:-1])
    assert (REPOSITORY / "README.md").read_text().count("```sh") == len(BLOCKS)


def test_make_test_would_run_pytest_after_its_setup() -> None:
    told = subprocess.run(
        ["bash", "-c", MAKE[1].replace("make", "make -n")],
        cwd=REPOSITORY, env=environment(), check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert told.index("bootstrap.py develop") < told.index("pytest")


async def test_make_up_serves_and_says_where(up: Stack) -> None:
    address = f"runs at {up.url.replace('127.0.0.1', 'localhost')} "

    def told() -> bool:
        text = up.log.read_text()
        return address in text and "Sign in as admin" in text

    await eventually(told, message="make up does not say where it runs")
    async with httpx2.AsyncClient(base_url=up.url, trust_env=False) as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert "<!doctype html>" in page.text.lower()


async def test_the_commands_add_a_user_a_catalog_and_a_cluster_that_runs_sessions(
    admin: Api, clone: Path, commands: subprocess.Popen[bytes]
) -> None:
    async def all_there() -> bool:
        assert commands.poll() is None, said(clone)
        clusters = (await admin.get("/clusters")).json()["items"]
        return any(each["id"] == "east" and each["presence"] == "online" for each in clusters)

    await eventually(all_there, timeout=60, message=f"the cluster is not online: {said(clone)}")
    assert "ada" in [each["username"] for each in await items(admin, "/users")]
    assert "team" in [each["name"] for each in await items(admin, "/catalogs")]

    async def synced() -> bool:
        templates = await items(admin, "/templates?limit=200")
        return any("team-terminal" in each["id"] for each in templates)

    await eventually(synced, timeout=60, message="the catalog was not synced")
    assert (clone / ".streamspace" / "east.json").stat().st_mode & 0o077 == 0
    session = await admin.launch("starter_terminal", clusterId="east")
    running = await admin.wait_for(session["id"], "running", seconds=60)
    assert running["clusterId"] == "east"
    assert any((clone / ".streamspace" / "east" / "homes").iterdir())
    assert (await admin.delete(session["id"])).status_code == 202
    await admin.wait_for(session["id"], *FINAL)


async def test_an_admin_who_lost_the_password_is_let_in_again(admin: Api, up: Stack) -> None:
    user = {"username": "forgetful", "password": "a long passphrase"}
    assert (await admin.post("/users", json=user)).status_code == 201
    told = subprocess.run(
        ["make", "--no-print-directory", "recover-admin", "NAME=forgetful"],
        cwd=REPOSITORY, env=environment(DATA=str(up.data)), check=True, capture_output=True,
        text=True, timeout=60,
    ).stdout  # fmt: skip
    found = re.search(r"^Sign in as forgetful with the password (\S+)$", told, flags=re.MULTILINE)
    assert found, told
    signed_in = await sign_in(admin.client, "forgetful", found[1])
    assert signed_in.user["role"] == "admin"


async def items(api: Api, path: str) -> list[dict[str, Any]]:
    answer = await api.get(path)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def said(clone: Path) -> str:
    return (clone.parent / "commands.log").read_text(errors="replace")[-3000:]
