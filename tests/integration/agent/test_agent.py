"""A whole agent as a process, real NATS, real desktops; the control plane is a few lines here."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio
from picows import WSListener, WSMsgType, WSUpgradeResponse, ws_create_server

from streamspace_agent.runtimes.process.paths import Layout
from streamspace_agent.runtimes.process.processes import process_table
from streamspace_common.bus import Bus, StartAt, ensure_durable
from streamspace_common.bus.envelope import command_headers
from streamspace_common.contracts.clusters import Heartbeat, Inventory, OpenTunnel
from streamspace_common.contracts.commands import (
    HibernateSession,
    StartSession,
    StopSession,
    WakeSession,
)
from streamspace_common.contracts.events import (
    AgentEvent,
    CommandExpired,
    CommandReceived,
    CommandSuperseded,
    PhaseReached,
    SessionFailed,
    SessionHibernated,
    SessionStarted,
    SessionStopped,
    parse_event,
)
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import AgentMethods
from streamspace_common.contracts.sessions import Reason
from streamspace_common.contracts.streams import EVENTS, agent_durable
from streamspace_common.contracts.subjects import all_heartbeats, command
from streamspace_common.testing.waiting import eventually

CLUSTER = ClusterId("lab")
S = SessionId("ada-terminal-00000001")


class ControlPlane:
    """Sends commands, and remembers every event, heartbeat and inventory."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.events: list[AgentEvent] = []
        self.heartbeats: list[Heartbeat] = []
        self.inventories: list[Inventory] = []
        self._count = 0
        self._generations: dict[SessionId, int] = {}

    async def follow(self) -> None:
        async with contextlib.aclosing(
            self.bus.tail(EVENTS.name, ["evt.lab.>"], start=StartAt.all())
        ) as messages:
            async for message in messages:
                event = parse_event(message.type, message.payload)
                assert isinstance(event, AgentEvent)
                self.events.append(event)

    async def hear(self, message: Any) -> None:
        if message.type == Heartbeat.TYPE:
            self.heartbeats.append(Heartbeat.from_json(message.payload))
        else:
            self.inventories.append(Inventory.from_json(message.payload))

    async def send(self, kind: Any, session: SessionId = S, **fields: Any) -> Any:
        """Issue the session's next command; `generation`, `attempt` and the like may be given."""
        self._count += 1
        generation = self._generations[session] = self._generations.get(session, 0) + 1
        now = datetime.now(UTC)
        values = {
            "command_id": CommandId(f"cmd-{self._count:08x}"),
            "session_id": session,
            "cluster_id": CLUSTER,
            "generation": generation,
            "issued_at": now,
            "deadline": now + timedelta(seconds=60),
            "actor": Actor(id="system:test"),
            **fields,
        }
        issued = kind(**values)
        await self.bus.publish(
            command(CLUSTER, session), issued.to_json(), command_headers(issued, source="test")
        )
        return issued

    def of(self, kind: type[AgentEvent], session: SessionId = S) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind) and e.session_id == session]

    async def heard(self, kind: type[AgentEvent], session: SessionId = S, count: int = 1) -> Any:
        def kinds() -> list[str]:
            return [f"{e.KIND}:{getattr(e, 'message', '')}" for e in self.events]

        await eventually(lambda: len(self.of(kind, session)) >= count, timeout=20)
        return self.of(kind, session)[count - 1]


class Agent:
    """The agent's process."""

    def __init__(self, tmp_path: Path, nats_url: str) -> None:
        # pytest's own paths are too long for sockets.
        self.sockets = Path(tempfile.mkdtemp(prefix="agent-test-"))
        self.layout = Layout.prepare(tmp_path / "agent", self.sockets)
        self.log = tmp_path / "agent.log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "STREAMSPACE_NATS_URL": nats_url,
            "STREAMSPACE_AGENT_CLUSTER_ID": CLUSTER,
            "STREAMSPACE_AGENT_STATE_DIR": str(self.layout.state),
            "STREAMSPACE_AGENT_RUNTIME_DIR": str(self.sockets),
            "STREAMSPACE_AGENT_HEARTBEAT_INTERVAL": "0.2",
            "STREAMSPACE_AGENT_INVENTORY_INTERVAL": "0.5",
            "STREAMSPACE_AGENT_KILL_GRACE": "0.5",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamspace_agent"],
                env=self.environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=30)

    def pids(self, name: str | None = None) -> list[int]:
        """Processes of its sessions, those of one program by its name."""
        marks = [f"STREAMSPACE_INSTALLATION={self.layout.installation}".encode()]
        marked = [entry.identity.pid for entry in process_table(marks) if entry.marked]
        return [pid for pid in marked if name is None or name in _name(pid)]

    def remains(self) -> list[str]:
        places = [*(self.layout.state / "sessions").iterdir(), *self.layout.sockets.glob("*")]
        return [*map(str, places), *(f"{pid} {_name(pid)}" for pid in self.pids())]


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "comm").read_text().strip()
    return ""


@pytest.fixture
def agent(tmp_path: Path, nats_server: Any, desktop_programs: None) -> Any:
    made = Agent(tmp_path, nats_server.url)
    yield made
    made.kill()
    for pid in made.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(made.sockets, ignore_errors=True)
    if "Traceback" in (log := made.log.read_text() if made.log.exists() else ""):
        raise AssertionError(log)


@pytest_asyncio.fixture
async def control_plane(bus: Bus) -> Any:
    await ensure_durable(bus, agent_durable(CLUSTER))
    plane = ControlPlane(bus)
    subscription = await bus.subscribe(all_heartbeats(), plane.hear)
    following = asyncio.create_task(plane.follow())
    yield plane
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await subscription.stop()


async def test_a_session_lives_from_start_to_stop_and_leaves_nothing(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.start()
    start = await control_plane.send(StartSession, spec=make_spec())
    started = await control_plane.heard(SessionStarted)

    assert [timing.phase for timing in started.phases] == [
        "scheduled",
        "created",
        "started",
        "ready",
    ]
    assert [e.id for e in control_plane.events] == [
        f"{start.session_id}.{start.command_id}.1.command_received",
        *(
            f"{start.session_id}.{start.command_id}.1.phase_reached.{timing.phase}"
            for timing in started.phases
        ),
        f"{start.session_id}.{start.command_id}.1.started",
    ]
    await eventually(lambda: control_plane.heartbeats[-1].running_sessions == 1)

    await control_plane.send(HibernateSession, spec=make_spec())
    await control_plane.heard(SessionHibernated)
    assert agent.remains() == []
    await control_plane.send(WakeSession, spec=make_spec())
    await control_plane.heard(SessionStarted, count=2)
    await control_plane.send(StopSession)
    stopped = await control_plane.heard(SessionStopped)
    assert stopped.generation == 4
    assert agent.remains() == []
    assert [path.name for path in (agent.layout.state / "homes").iterdir()] == ["ada-00000000"]


async def test_five_sessions_at_once(agent: Any, control_plane: Any, make_spec: Any) -> None:
    agent.start()
    sessions = [SessionId(f"ada-terminal-0000001{i}") for i in range(5)]
    for session in sessions:
        await control_plane.send(StartSession, session, spec=make_spec(session))
    for session in sessions:
        await control_plane.heard(SessionStarted, session)
    assert len(agent.pids("Xvnc") + agent.pids("Xtigervnc")) == 5
    for session in sessions:
        await control_plane.send(StopSession, session)
    for session in sessions:
        await control_plane.heard(SessionStopped, session)
    assert agent.remains() == []


async def test_a_killed_agent_adopts_its_sessions(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.start()
    await control_plane.send(StartSession, spec=make_spec())
    await control_plane.heard(SessionStarted)
    before = agent.pids()
    agent.kill()
    control_plane.inventories.clear()
    agent.start()
    await eventually(lambda: control_plane.inventories, timeout=20)

    (held,) = control_plane.inventories[0].resources
    assert (held.session_id, held.generation, held.state) == (S, 1, "running")
    assert agent.pids() == before
    await control_plane.send(StopSession)
    await control_plane.heard(SessionStopped)
    assert agent.remains() == []


async def test_a_killed_desktop_is_reported_with_the_reason(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.start()
    await control_plane.send(StartSession, spec=make_spec())
    await control_plane.heard(SessionStarted)
    (display,) = agent.pids("Xvnc") or agent.pids("Xtigervnc")
    os.kill(display, signal.SIGKILL)

    async with asyncio.timeout(5):
        failed = await control_plane.heard(SessionFailed)
    assert failed.reason is Reason.DESKTOP_DIED
    assert "display server was killed by SIGKILL" in failed.message
    await eventually(lambda: agent.remains() == [])


async def test_a_death_while_the_agent_is_away_is_told_once(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.start()
    await control_plane.send(StartSession, spec=make_spec())
    await control_plane.heard(SessionStarted)
    agent.kill()
    (display,) = agent.pids("Xvnc") or agent.pids("Xtigervnc")
    os.kill(display, signal.SIGKILL)
    for _ in range(2):
        control_plane.inventories.clear()
        agent.start()
        await control_plane.heard(SessionFailed)
        await eventually(lambda: control_plane.inventories, timeout=20)
        agent.kill()
    assert len(control_plane.of(SessionFailed)) == 1


async def test_a_session_deleted_while_its_agent_is_away_is_gone_when_it_returns(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.start()
    await control_plane.send(StartSession, spec=make_spec())
    await control_plane.heard(SessionStarted)
    agent.kill()
    await control_plane.send(StopSession)
    agent.start()
    await control_plane.heard(SessionStopped)
    assert agent.remains() == []
    assert len(control_plane.of(SessionStopped)) == 1


async def test_a_session_created_and_deleted_while_its_agent_is_away_never_starts(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    start = await control_plane.send(StartSession, spec=make_spec())
    await control_plane.send(StopSession)
    agent.start()
    await control_plane.heard(SessionStopped)
    # Even when the old start turns up late, as a replay would bring it.
    await control_plane.send(
        StartSession, spec=make_spec(), generation=1, command_id=start.command_id, attempt=2
    )
    superseded = await control_plane.heard(CommandSuperseded)

    assert superseded.newer_generation == 2
    assert control_plane.of(PhaseReached) == []
    assert agent.remains() == []


async def test_a_stop_cuts_a_running_start_short(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.environment["STREAMSPACE_AGENT_WINDOW_PATIENCE"] = "60"
    agent.environment["STREAMSPACE_AGENT_START_TIMEOUT"] = "60"
    agent.start()
    # An application that never shows a window keeps the start waiting.
    await control_plane.send(StartSession, spec=make_spec(command=("sleep", "1000")))
    await eventually(lambda: len(control_plane.of(PhaseReached)) == 3, timeout=20)
    await control_plane.send(StopSession)
    await control_plane.heard(SessionStopped)

    assert len(control_plane.of(CommandSuperseded)) == 1
    assert control_plane.of(SessionStarted) == []
    assert agent.remains() == []


async def test_a_repeated_command_is_answered_again_without_being_repeated(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.start()
    start = await control_plane.send(StartSession, spec=make_spec())
    await control_plane.heard(SessionStarted)
    before = agent.pids()
    await control_plane.send(
        StartSession, spec=make_spec(), generation=1, command_id=start.command_id, attempt=2
    )
    again = await control_plane.heard(SessionStarted, count=2)
    assert again.id == f"{again.session_id}.{start.command_id}.2.started"
    assert agent.pids() == before


async def test_a_start_past_its_deadline_expires(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    await control_plane.send(
        StartSession, spec=make_spec(), deadline=datetime.now(UTC) - timedelta(minutes=1)
    )
    agent.start()
    await control_plane.heard(CommandExpired)
    assert control_plane.of(CommandReceived) == []


async def test_a_missing_program_fails_the_session_with_what_to_do(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.start()
    await control_plane.send(StartSession, spec=make_spec(command=("no-such-editor",)))
    failed = await control_plane.heard(SessionFailed)
    assert failed.reason is Reason.MISSING_PROGRAM
    assert "apt-get install" in failed.message


async def test_an_unreadable_command_harms_nobody(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.start()
    await control_plane.bus.publish(
        command(CLUSTER, SessionId("broken")), b"{not json", {"Nats-Msg-Id": "broken"}
    )
    await control_plane.send(StartSession, spec=make_spec())
    await control_plane.heard(SessionStarted)


async def test_a_restart_of_nats_amid_a_start_loses_nothing(
    agent: Any, control_plane: Any, make_spec: Any, nats_server: Any
) -> None:
    agent.environment["STREAMSPACE_AGENT_WINDOW_PATIENCE"] = "1"
    agent.start()
    await control_plane.send(StartSession, spec=make_spec(command=("sleep", "1000")))
    await eventually(lambda: control_plane.of(PhaseReached), timeout=20)
    nats_server.restart(kill=True)
    started = await control_plane.heard(SessionStarted)
    assert started.generation == 1
    assert len(control_plane.of(SessionStarted)) == 1


async def test_an_agent_told_to_end_says_so_and_keeps_its_sessions(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.start()
    await control_plane.send(StartSession, spec=make_spec())
    await control_plane.heard(SessionStarted)
    before = agent.pids()
    agent.stop()
    await eventually(lambda: control_plane.heartbeats[-1].draining)
    assert agent.pids() == before


async def test_an_agent_may_stop_its_sessions_and_bring_them_back(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    agent.environment["STREAMSPACE_AGENT_ON_EXIT"] = "stop"
    agent.start()
    await control_plane.send(StartSession, spec=make_spec())
    await control_plane.heard(SessionStarted)
    agent.stop()
    assert agent.remains() == []
    control_plane.inventories.clear()
    agent.start()

    def runs_again() -> bool:
        return any(
            r.session_id == S and r.state == "running"
            for inventory in control_plane.inventories
            for r in inventory.resources
        )

    await eventually(runs_again, timeout=20)
    assert control_plane.of(SessionFailed) == []
    await control_plane.send(StopSession)
    await control_plane.heard(SessionStopped)
    assert agent.remains() == []


class Relay:
    """Stands for the vnc-proxy: takes dial-backs and speaks to what is behind them."""

    def __init__(self) -> None:
        self.secrets: list[str | None] = []
        self.received = bytearray()
        self.transport: Any = None
        self.closed: Callable[[], bool] = lambda: self.transport.is_disconnected
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await ws_create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.transport is not None:
            self.transport.disconnect()
        self._server.close()
        await self._server.wait_closed()

    def _accept(self, request: Any) -> Any:
        self.secrets.append(request.headers.get("Authorization"))
        relay = self

        class Listener(WSListener):
            def on_ws_connected(self, transport: Any) -> None:
                relay.transport = transport

            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                if frame.msg_type is WSMsgType.BINARY:
                    relay.received += frame.get_payload_as_bytes()
                elif frame.msg_type is WSMsgType.CLOSE:
                    transport.send_close(frame.get_close_code())
                    transport.disconnect()

        return Listener()


def open_tunnel(relay_port: int, session: SessionId = S, path: str = "/tunnels/t1") -> OpenTunnel:
    return OpenTunnel(
        tunnel_id="t1",
        secret="one-time-secret",
        dial_url=f"ws://127.0.0.1:{relay_port}{path}",
        session_id=session,
        port=5900,
        deadline=datetime.now(UTC) + timedelta(seconds=5),
    )


async def call(control_plane: ControlPlane, request: OpenTunnel) -> Any:
    return await control_plane.bus.call_cluster(AgentMethods.OPEN_TUNNEL, CLUSTER, request)


async def test_a_tunnel_carries_the_desktop_to_the_relay_until_the_session_ends(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    async with Relay() as relay:
        agent.environment["STREAMSPACE_AGENT_TUNNEL_URL"] = f"http://127.0.0.1:{relay.port}"
        agent.start()
        await control_plane.send(StartSession, spec=make_spec())
        await control_plane.heard(SessionStarted)
        opened = await call(control_plane, open_tunnel(relay.port))

        assert opened.tunnel_id == "t1"
        assert relay.secrets == ["Bearer one-time-secret"]
        await eventually(lambda: bytes(relay.received) == b"RFB 003.008\n")
        relay.transport.send(WSMsgType.BINARY, b"RFB 003.008\n")
        # One security type is offered: none.
        await eventually(lambda: bytes(relay.received[12:]) == b"\x01\x01")
        await control_plane.send(StopSession)
        await eventually(relay.closed)


async def test_no_tunnel_is_opened_for_a_session_that_does_not_run(
    agent: Any, control_plane: Any
) -> None:
    async with Relay() as relay:
        agent.environment["STREAMSPACE_AGENT_TUNNEL_URL"] = f"http://127.0.0.1:{relay.port}"
        agent.start()
        await eventually(lambda: control_plane.inventories, timeout=20)
        with pytest.raises(ProblemError) as refused:
            await call(control_plane, open_tunnel(relay.port))
        assert refused.value.problem.code is Code.SESSION_UNREACHABLE
        assert relay.secrets == []


async def test_no_tunnel_is_dialled_to_any_address_but_the_relays(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        agent.environment["STREAMSPACE_AGENT_TUNNEL_URL"] = "https://relay.example.com"
        agent.start()
        await control_plane.send(StartSession, spec=make_spec())
        await control_plane.heard(SessionStarted)
        with pytest.raises(ProblemError) as refused:
            await call(control_plane, open_tunnel(elsewhere.getsockname()[1]))
        assert refused.value.problem.code is Code.FORBIDDEN
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


async def test_a_relay_that_refuses_the_dial_back_is_a_clean_error(
    agent: Any, control_plane: Any, make_spec: Any
) -> None:
    def refuse(_request: Any) -> Any:
        return WSUpgradeResponse.create_error_response(403, b"no")

    server = await ws_create_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        agent.environment["STREAMSPACE_AGENT_TUNNEL_URL"] = f"ws://127.0.0.1:{port}/tunnels"
        agent.start()
        await control_plane.send(StartSession, spec=make_spec())
        await control_plane.heard(SessionStarted)
        with pytest.raises(ProblemError) as refused:
            await call(control_plane, open_tunnel(port))
        assert refused.value.problem.code is Code.SERVICE_UNAVAILABLE
    finally:
        server.close()
        await server.wait_closed()
