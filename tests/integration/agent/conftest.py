"""A real runtime of each kind, behind the few things a test does to a session from outside."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from streamspace_agent.ports import Runtime
from streamspace_agent.runtimes.null import NullOptions, NullRuntime
from streamspace_agent.runtimes.process.paths import Layout
from streamspace_agent.runtimes.process.processes import process_table
from streamspace_agent.runtimes.process.runtime import ProcessRuntime
from streamspace_agent.runtimes.process.starts import ProcessOptions
from streamspace_common.contracts.catalog import (
    Connection,
    EnvVar,
    Metadata,
    ProcessSpec,
    Protocol,
    ResourceAmounts,
    TemplateManifest,
    TemplateSpec,
)
from streamspace_common.contracts.clusters import Capacity
from streamspace_common.contracts.ids import SessionId, TemplateId, UserId
from streamspace_common.contracts.sessions import Owner, SessionSpec

CAPACITY = Capacity(max_sessions=10, cpu=2, memory=2**32)


@pytest.fixture
def desktop_programs() -> None:
    """Skips where this machine cannot show a desktop."""
    missing = [name for name in ("Xvnc", "openbox", "xterm", "tint2") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


MakeSpec = Callable[..., SessionSpec]


@pytest.fixture
def make_spec() -> MakeSpec:
    """Specs of a terminal session; `command`, `panel`, `env` and the like may be given."""

    def make(
        session: str = "ada-terminal-00000001",
        *,
        command: tuple[str, ...] = ("xterm",),
        panel: bool = False,
        window_manager: bool = True,
        persistent_home: bool = True,
        http_port: int | None = None,
        display: bool = True,
        env: dict[str, str] | None = None,
        template_env: dict[str, str] | None = None,
    ) -> SessionSpec:
        template = TemplateSpec(
            display_name="Terminal",
            connection=(
                Connection(protocol=Protocol.VNC, port=5900)
                if http_port is None
                else Connection(protocol=Protocol.HTTP, port=http_port)
            ),
            process=ProcessSpec(
                command=command, panel=panel, window_manager=window_manager, display=display
            ),
            env=tuple(EnvVar(name=k, value=v) for k, v in (template_env or {}).items()),
        )
        return SessionSpec(
            session_id=SessionId(session),
            owner=Owner(user_id=UserId(f"usr-{'0' * 32}"), username="ada"),
            template_id=TemplateId("starter_terminal"),
            template_digest="0" * 64,
            template_manifest=TemplateManifest(metadata=Metadata(name="terminal"), spec=template),
            resources=ResourceAmounts(),
            persistent_home=persistent_home,
            home="ada-00000000",
            env=env or {},
        )

    return make


@dataclass
class Installation:
    """One state directory, and the agents' runtimes that use it one after another."""

    make: Callable[[], Runtime]
    kill: Callable[[Runtime, SessionId], Awaitable[None]]
    remains: Callable[[], list[str]]
    runtime: Runtime
    _all: list[Runtime] = field(default_factory=list)

    async def another(self) -> Runtime:
        """A second agent's runtime beside, or after, the first."""
        runtime = self.make()
        await runtime.open()
        self._all.append(runtime)
        return runtime

    async def close(self) -> None:
        for runtime in self._all:
            await runtime.close(stop_sessions=False)


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
    await made.runtime.open()
    made._all.append(made.runtime)
    try:
        yield made
    finally:
        await _remove_everything(made)
        await made.close()


async def _remove_everything(made: Installation) -> None:
    for observed in await made.runtime.inventory():
        await made.runtime.ensure_absent(observed.session_id, 10**6, delete_home=False)
    await asyncio.sleep(0)
