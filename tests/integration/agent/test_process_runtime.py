"""What sessions made of this machine's processes do beyond what every runtime does."""

import asyncio
import os
import signal
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.support.phases import ignore

from streamspace_agent.ports import PermanentFailure
from streamspace_agent.runtimes.process import desktop
from streamspace_agent.runtimes.process.paths import Layout
from streamspace_agent.runtimes.process.processes import process_table
from streamspace_agent.runtimes.process.records import Records
from streamspace_agent.runtimes.process.runtime import ProcessRuntime
from streamspace_agent.runtimes.process.starts import ProcessOptions
from streamspace_common.contracts.clusters import Capacity, ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, Reason
from streamspace_common.testing.waiting import eventually

S = SessionId("ada-terminal-00000001")
CAPACITY = Capacity(max_sessions=10, cpu=2, memory=2**32)


class Machine:
    """One state directory and the runtimes that use it."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.layout = Layout.prepare(tmp_path / "state")
        self.options = ProcessOptions(capacity=CAPACITY, **{"kill_grace": 0.3, **options})
        self.runtime = ProcessRuntime(self.layout, self.options)

    def record(self, session: SessionId = S) -> Any:
        return Records(self.layout.records).load(session)

    def pid(self, role: str, session: SessionId = S) -> int:
        record = self.record(session)
        return next(int(p.pid) for p in record.processes if p.role == role)

    def pids(self) -> list[int]:
        marks = [f"STREAMSPACE_INSTALLATION={self.layout.installation}".encode()]
        return [entry.identity.pid for entry in process_table(marks) if entry.marked]

    def home(self) -> Path:
        return self.layout.state / "homes" / "ada-00000000"

    def remains(self) -> list[str]:
        places = [*(self.layout.state / "sessions").iterdir(), *self.layout.sockets.glob("*")]
        return [*map(str, places), *map(str, self.pids())]

    async def restart(self, *, stop_sessions: bool) -> None:
        await self.runtime.close(stop_sessions=stop_sessions)
        self.runtime = ProcessRuntime(self.layout, self.options)
        await self.runtime.open()

    async def close(self) -> None:
        for observed in await self.runtime.inventory():
            await self.runtime.ensure_absent(observed.session_id, 10**6, delete_home=False)
        await self.runtime.close(stop_sessions=False)


@pytest_asyncio.fixture
async def machine(tmp_path: Path, desktop_programs: None) -> Any:
    made = Machine(tmp_path)
    await made.runtime.open()
    yield made
    await made.close()


def script(*lines: str) -> tuple[str, ...]:
    """A shell application that does something and then stays, as a window would."""
    return ("sh", "-c", "\n".join([*lines, "exec sleep 1000"]))


async def test_the_application_sees_the_session_and_nothing_of_the_agent(
    machine: Any, make_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSPACE_AGENT_SECRET", "agent-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "agent-secret")
    spec = make_spec(
        command=script("env > env.tmp", "mv env.tmp environment"),
        template_env={"COLOUR": "red", "SHAPE": "round"},
        env={"COLOUR": "blue"},
    )
    await machine.runtime.ensure_running(spec, 1, ignore)
    seen = machine.home() / "environment"
    await eventually(seen.exists)

    lines = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
    assert lines["HOME"] == str(machine.home())
    assert lines["COLOUR"] == "blue"
    assert lines["SHAPE"] == "round"
    assert lines["PWD"] == str(machine.home())
    assert "agent-secret" not in seen.read_text()
    assert Path(lines["XDG_RUNTIME_DIR"]).stat().st_mode & 0o777 == 0o700
    assert Path(lines["TMPDIR"]).stat().st_mode & 0o777 == 0o700


async def test_home_outlives_hibernation_and_stop_and_goes_only_when_told(
    machine: Any, make_spec: Any
) -> None:
    await machine.runtime.ensure_running(make_spec(), 1, ignore)
    (machine.home() / "notes").write_text("mine")
    assert machine.home().stat().st_mode & 0o777 == 0o700
    await machine.runtime.ensure_hibernated(make_spec(), 2)
    await machine.runtime.ensure_running(make_spec(), 3, ignore)
    await machine.runtime.ensure_absent(S, 4, delete_home=False)
    assert (machine.home() / "notes").read_text() == "mine"

    await machine.runtime.ensure_running(make_spec(), 5, ignore)
    (machine.home() / "cache").mkdir()
    (machine.home() / "cache" / "read-only").mkdir()
    (machine.home() / "cache" / "read-only" / "file").write_text("x")
    (machine.home() / "cache" / "read-only").chmod(0o500)
    await machine.runtime.ensure_absent(S, 6, delete_home=True)
    assert list((machine.layout.state / "homes").iterdir()) == []


async def test_a_home_that_another_session_uses_is_not_deleted(
    machine: Any, make_spec: Any
) -> None:
    other = SessionId("ada-terminal-00000002")
    await machine.runtime.ensure_running(make_spec(), 1, ignore)
    await machine.runtime.ensure_running(make_spec(other), 1, ignore)
    await machine.runtime.ensure_absent(S, 2, delete_home=True)
    assert machine.home().is_dir()
    await machine.runtime.ensure_absent(other, 2, delete_home=True)
    assert not machine.home().exists()


async def test_a_temporary_home_ends_with_its_session(machine: Any, make_spec: Any) -> None:
    spec = make_spec(persistent_home=False, command=script("touch here"))
    await machine.runtime.ensure_running(spec, 1, ignore)
    await eventually((machine.layout.temporary_home(S) / "here").exists)
    await machine.runtime.ensure_hibernated(spec, 2)
    assert (machine.layout.temporary_home(S) / "here").exists()
    await machine.runtime.ensure_absent(S, 3, delete_home=False)
    assert list((machine.layout.state / "homes").iterdir()) == []


async def test_a_missing_program_is_named_with_the_line_that_installs_it(
    machine: Any, make_spec: Any
) -> None:
    with pytest.raises(PermanentFailure, match="apt-get install -y no-such-editor") as failed:
        await machine.runtime.ensure_running(make_spec(command=("no-such-editor",)), 1, ignore)
    assert failed.value.reason is Reason.MISSING_PROGRAM
    assert machine.remains() == []
    assert machine.record() is None


async def test_an_application_that_fails_at_once_fails_the_start_with_its_last_words(
    machine: Any, make_spec: Any
) -> None:
    command = ("sh", "-c", "echo no licence found >&2; exit 3")
    with pytest.raises(PermanentFailure, match=r"exit code 3.*no licence found") as failed:
        await machine.runtime.ensure_running(make_spec(command=command), 1, ignore)
    assert failed.value.reason is Reason.START_FAILED
    assert machine.remains() == []


async def test_a_full_disk_fails_the_start_before_anything_runs(
    tmp_path: Path, make_spec: Any, desktop_programs: None
) -> None:
    machine = Machine(tmp_path, min_free_space=2**60)
    await machine.runtime.open()
    with pytest.raises(PermanentFailure) as failed:
        await machine.runtime.ensure_running(make_spec(), 1, ignore)
    assert failed.value.reason is Reason.NO_SPACE
    assert "make room" in (await machine.runtime.trouble() or "")
    await machine.close()


async def test_closing_the_only_application_ends_the_session(machine: Any, make_spec: Any) -> None:
    await machine.runtime.ensure_running(make_spec(), 1, ignore)
    os.kill(machine.pid(desktop.APPLICATION), signal.SIGTERM)
    async with aclosing(machine.runtime.watch()) as changes, asyncio.timeout(5):
        observed = await anext(changes)
    assert observed.state is ResourceState.DEAD
    assert "application" in observed.death.message
    await eventually(lambda: machine.remains() == [])


async def test_closing_a_window_of_a_desktop_with_a_panel_leaves_the_desktop(
    machine: Any, make_spec: Any
) -> None:
    await machine.runtime.ensure_running(make_spec(panel=True), 1, ignore)
    application = machine.pid(desktop.APPLICATION)
    os.kill(application, signal.SIGTERM)
    await eventually(lambda: application not in machine.pids())

    leg = await machine.runtime.dial(S, 5900)
    leg.abort()
    await eventually(lambda: leg.ending is not None)
    observed = await machine.runtime.observe(S)
    assert observed is not None
    assert observed.state is ResourceState.RUNNING


async def test_the_end_of_the_window_manager_ends_the_session(machine: Any, make_spec: Any) -> None:
    await machine.runtime.ensure_running(make_spec(panel=True), 1, ignore)
    os.kill(machine.pid(desktop.WINDOW_MANAGER), signal.SIGKILL)
    async with aclosing(machine.runtime.watch()) as changes, asyncio.timeout(5):
        observed = await anext(changes)
    assert "window manager was killed by SIGKILL" in observed.death.message


async def test_nothing_survives_a_stop_not_even_what_hides(machine: Any, make_spec: Any) -> None:
    deaf = f"{sys.executable} -c 'import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(999)'"
    spec = make_spec(
        command=script(
            f"{deaf} &",
            "setsid -f sleep 998",
            "env -i setsid sleep 997 &",
            "env -i sleep 996 &",
            "sleep 995 & kill -STOP $!",
            "touch all-started",
        )
    )
    await machine.runtime.ensure_running(spec, 1, ignore)
    await eventually((machine.home() / "all-started").exists)
    await machine.runtime.ensure_absent(S, 2, delete_home=False)
    assert machine.remains() == []


async def test_a_killed_display_leaves_no_lock_and_no_socket(machine: Any, make_spec: Any) -> None:
    await machine.runtime.ensure_running(make_spec(), 1, ignore)
    display = machine.record().display
    os.kill(machine.pid(desktop.DISPLAY), signal.SIGKILL)
    await eventually(lambda: machine.remains() == [])
    await eventually(lambda: not Path(f"/tmp/.X{display}-lock").exists())


async def test_an_agent_killed_amid_a_start_leaves_nothing_to_the_next(
    machine: Any, make_spec: Any
) -> None:
    begun = asyncio.Event()

    def at(phase: Phase, _message: str | None = None, *, ongoing: bool = False) -> None:
        if phase is Phase.STARTED:
            begun.set()

    starting = asyncio.create_task(machine.runtime.ensure_running(make_spec(), 1, at))
    await begun.wait()
    interrupted = machine.record()
    assert interrupted.state is ResourceState.STARTING
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)

    # What a kill would have left: the record, and a process that carries the marks.
    Records(machine.layout.records).save(interrupted)
    environment = {
        "STREAMSPACE_SESSION_ID": S,
        "STREAMSPACE_INSTALLATION": machine.layout.installation,
    }
    orphan = await asyncio.create_subprocess_exec("sleep", "994", env=environment)
    await machine.restart(stop_sessions=False)
    assert await orphan.wait() == -signal.SIGTERM
    assert machine.record() is None


async def test_sessions_stopped_with_the_agent_come_back_with_the_next(
    machine: Any, make_spec: Any
) -> None:
    await machine.runtime.ensure_running(make_spec(), 7, ignore)
    before = machine.record()
    await machine.restart(stop_sessions=True)
    await eventually(
        lambda: machine.record().state is ResourceState.RUNNING and not machine.record().suspended
    )

    after = machine.record()
    assert after.generation == 7
    assert after.incarnation != before.incarnation
    assert (await machine.runtime.observe(S)) is not None


async def test_nothing_runs_between_an_agent_that_stops_its_sessions_and_the_next(
    machine: Any, make_spec: Any
) -> None:
    await machine.runtime.ensure_running(make_spec(), 1, ignore)
    await machine.runtime.close(stop_sessions=True)
    assert machine.remains() == []
    machine.runtime = ProcessRuntime(machine.layout, machine.options)


async def test_an_adopted_desktop_that_dies_is_seen(machine: Any, make_spec: Any) -> None:
    await machine.runtime.ensure_running(make_spec(), 1, ignore)
    await machine.restart(stop_sessions=False)
    os.kill(machine.pid(desktop.DISPLAY), signal.SIGKILL)
    async with aclosing(machine.runtime.watch()) as changes, asyncio.timeout(5):
        observed = await anext(changes)
    assert observed.state is ResourceState.DEAD


async def test_an_application_without_window_manager_gets_the_bare_display(
    machine: Any, make_spec: Any
) -> None:
    await machine.runtime.ensure_running(make_spec(window_manager=False), 1, ignore)
    assert [p.role for p in machine.record().processes] == [desktop.DISPLAY, desktop.APPLICATION]


async def test_no_display_listens_on_a_network(machine: Any, make_spec: Any) -> None:
    await machine.runtime.ensure_running(make_spec(), 1, ignore)
    pid = machine.pid(desktop.DISPLAY)
    inodes = {
        str(link.readlink()).removeprefix("socket:[").rstrip("]")
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if str(link.readlink()).startswith("socket:")
    }
    listening = {
        line.split()[9]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    assert not inodes & listening


async def test_a_wake_that_was_cut_short_ends_in_hibernation_with_its_home(
    machine: Any, make_spec: Any
) -> None:
    spec = make_spec(persistent_home=False)
    await machine.runtime.ensure_running(spec, 1, ignore)
    (machine.layout.temporary_home(S) / "notes").write_text("mine")
    await machine.runtime.ensure_hibernated(spec, 2)
    hibernated = machine.record()
    interrupted = hibernated.model_copy(
        update={"state": ResourceState.STARTING, "generation": 3, "woken": True}
    )
    Records(machine.layout.records).save(interrupted)
    await machine.restart(stop_sessions=False)

    assert machine.record().state is ResourceState.HIBERNATED
    assert (machine.layout.temporary_home(S) / "notes").read_text() == "mine"


async def test_a_failed_start_takes_its_temporary_home_along(machine: Any, make_spec: Any) -> None:
    spec = make_spec(persistent_home=False, command=("false",))
    with pytest.raises(PermanentFailure):
        await machine.runtime.ensure_running(spec, 1, ignore)
    assert list((machine.layout.state / "homes").iterdir()) == []


async def test_sessions_are_not_stopped_while_another_agent_serves_them(
    machine: Any, make_spec: Any
) -> None:
    await machine.runtime.ensure_running(make_spec(), 1, ignore)
    other = ProcessRuntime(machine.layout, machine.options)
    await other.open()
    await other.close(stop_sessions=True)
    assert machine.pids() != []
    await machine.runtime.close(stop_sessions=True)
    assert machine.remains() == []
    machine.runtime = ProcessRuntime(machine.layout, machine.options)


async def test_a_record_nobody_can_read_is_set_aside(machine: Any) -> None:
    (machine.layout.records / f"{S}.json").write_text("{half")
    assert await machine.runtime.inventory() == ()
    assert (machine.layout.records / f"{S}.unreadable").exists()
