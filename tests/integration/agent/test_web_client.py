"""Sessions of processes that serve a web client of their own, mostly without a display."""

import asyncio
import os
import signal
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.phases import Heard, ignore

from streamspace_agent.ports import PermanentFailure, SessionUnreachable
from streamspace_agent.runtimes.process.paths import Layout
from streamspace_agent.runtimes.process.records import Records, SessionRecord
from streamspace_agent.runtimes.process.runtime import ProcessRuntime
from streamspace_agent.runtimes.process.starts import ProcessOptions
from streamspace_common.contracts.clusters import Capacity, ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase
from streamspace_common.testing.waiting import eventually

S = SessionId("ada-terminal-00000001")
SERVER = (sys.executable, "-I", "-m", "http.server", "{port}", "--bind", "127.0.0.1")


class Machine:
    """One state directory and the runtimes that use it."""

    def __init__(self, tmp_path: Path) -> None:
        self.layout = Layout.prepare(tmp_path / "state")
        self.runtime = self.another()

    def another(self) -> ProcessRuntime:
        capacity = Capacity(max_sessions=10, cpu=2, memory=2**32)
        return ProcessRuntime(self.layout, ProcessOptions(capacity=capacity, kill_grace=0.3))

    def record(self) -> SessionRecord:
        record = Records(self.layout.records).load(S)
        assert record is not None
        return record

    async def ask(self, port: int) -> bytes:
        """The first bytes that the session's port answers."""
        leg = await self.runtime.dial(S, port)
        heard = bytearray()

        def hear(pieces: Any) -> None:
            for piece in pieces:
                heard.extend(piece)

        leg.attach(leg, hear)
        leg.write(b"GET / HTTP/1.0\r\n\r\n")
        await eventually(lambda: leg.ending is not None)
        return bytes(heard)


@pytest_asyncio.fixture
async def machine(tmp_path: Path) -> Any:
    made = Machine(tmp_path)
    await made.runtime.open()
    yield made
    for observed in await made.runtime.inventory():
        await made.runtime.ensure_absent(observed.session_id, 10**6, delete_home=False)
    await made.runtime.close(stop_sessions=False)


async def test_a_server_is_reached_by_its_declared_port_and_only_that(
    machine: Any, make_spec: Any
) -> None:
    heard = Heard()
    spec = make_spec(command=SERVER, http_port=8000, display=False)
    await machine.runtime.ensure_running(spec, 1, heard)
    assert heard.reached == [Phase.SCHEDULED, Phase.CREATED, Phase.STARTED, Phase.READY]
    record = machine.record()
    assert record.http_port not in {None, 8000}
    assert record.display is None
    assert [process.role for process in record.processes] == ["application"]
    assert (await machine.ask(8000)).startswith(b"HTTP/1.0 200")
    for port in (5900, 22, record.http_port):
        with pytest.raises(SessionUnreachable):
            await machine.runtime.dial(S, port)


async def test_a_server_that_dies_is_told_and_one_that_does_not_start_explained(
    machine: Any, make_spec: Any
) -> None:
    await machine.runtime.ensure_running(
        make_spec(command=SERVER, http_port=8000, display=False), 1, ignore
    )
    os.kill(machine.record().processes[0].pid, signal.SIGKILL)
    async with aclosing(machine.runtime.watch()) as changes, asyncio.timeout(5):
        async for change in changes:
            assert change.state is ResourceState.DEAD
            break
    with pytest.raises(SessionUnreachable):
        await machine.runtime.dial(S, 8000)
    broken = make_spec(command=("sh", "-c", "echo no licence; exit 3"), http_port=1, display=False)
    with pytest.raises(PermanentFailure, match="no licence"):
        await machine.runtime.ensure_running(broken, 2, ignore)


async def test_a_server_is_adopted_by_the_next_agent(machine: Any, make_spec: Any) -> None:
    spec = make_spec(command=SERVER, http_port=8000, display=False)
    await machine.runtime.ensure_running(spec, 1, ignore)
    before = machine.record()
    await machine.runtime.close(stop_sessions=False)
    machine.runtime = machine.another()
    await machine.runtime.open()
    assert machine.record().processes == before.processes
    assert (await machine.ask(8000)).startswith(b"HTTP/1.0 200")


async def test_a_server_beside_a_display_is_ready_when_it_answers(
    machine: Any, make_spec: Any, desktop_programs: None
) -> None:
    spec = make_spec(command=SERVER, http_port=8000, window_manager=False)
    await machine.runtime.ensure_running(spec, 1, ignore)
    assert machine.record().display is not None
    assert (await machine.ask(8000)).startswith(b"HTTP/1.0 200")
