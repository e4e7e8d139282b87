"""A real runtime of each kind, behind the few things a test does to a session from outside."""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support import installation as installation_support
from tests.support.installation import Installation, MakeSpec

from streamspace_agent.ports import Runtime
from streamspace_agent.runtimes.null import NullOptions, NullRuntime
from streamspace_agent.runtimes.process.paths import Layout
from streamspace_agent.runtimes.process.processes import process_table
from streamspace_agent.runtimes.process.runtime import ProcessRuntime
from streamspace_agent.runtimes.process.starts import ProcessOptions
from streamspace_common.contracts.clusters import Capacity
from streamspace_common.contracts.ids import SessionId

# Its asserts tell what they compared only if pytest rewrites them.
pytest.register_assert_rewrite("tests.support.runtime_behaviour")

CAPACITY = Capacity(max_sessions=10, cpu=2, memory=2**32)


@pytest.fixture
def desktop_programs() -> None:
    """Skips where this machine cannot show a desktop."""
    missing = [name for name in ("Xvnc", "openbox", "xterm", "tint2") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def make_spec() -> MakeSpec:
    """Specs of a terminal session; `command`, `panel`, `env` and the like may be given."""
    return installation_support.make_spec


def _null(tmp_path: Path) -> Installation:
    ledger = tmp_path / "ledger.jsonl"

    def make() -> Runtime:
        return NullRuntime(ledger, NullOptions(capacity=CAPACITY, start_delay=0.05))

    async def kill(runtime: Runtime, session: SessionId) -> None:
        assert isinstance(runtime, NullRuntime)
        await runtime.kill(session)

    return Installation(make, kill, list, make())


def _process(tmp_path: Path) -> Installation:
    layout = Layout.prepare(tmp_path / "state")

    def make() -> Runtime:
        return ProcessRuntime(layout, ProcessOptions(capacity=CAPACITY))

    async def kill(runtime: Runtime, session: SessionId) -> None:
        for entry in _marked(layout, session):
            if (Path("/proc") / str(entry) / "comm").read_text().strip() in {"Xvnc", "Xtigervnc"}:
                os.kill(entry, signal.SIGKILL)

    def remains() -> list[str]:
        places = [*(layout.state / "sessions").iterdir(), *layout.sockets.glob("*")]
        return [str(path) for path in places] + [str(pid) for pid in _marked(layout, None)]

    return Installation(make, kill, remains, make())


def _marked(layout: Layout, session: SessionId | None) -> list[int]:
    marks = [f"STREAMSPACE_INSTALLATION={layout.installation}".encode()]
    if session is not None:
        marks.append(f"STREAMSPACE_SESSION_ID={session}".encode())
    return [entry.identity.pid for entry in process_table(marks) if entry.marked]


@pytest_asyncio.fixture(params=["null", "process"])
async def installation(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Installation]:
    if request.param == "process":
        request.getfixturevalue("desktop_programs")
    made = _null(tmp_path) if request.param == "null" else _process(tmp_path)
    await made.begin()
    try:
        yield made
    finally:
        await made.end()
