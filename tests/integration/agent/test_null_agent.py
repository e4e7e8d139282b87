"""The null runtime under fire: agents that are killed, share a ledger, and fail on purpose."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from streamspace_common.bus import Bus, ensure_durable
from streamspace_common.bus.envelope import command_headers
from streamspace_common.contracts.commands import StartSession, StopSession
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId
from streamspace_common.contracts.streams import agent_durable
from streamspace_common.contracts.subjects import command
from streamspace_common.testing.waiting import eventually

CLUSTER = ClusterId("lab")
SESSIONS = [SessionId(f"ada-null-{number:08x}") for number in range(60)]


class Agents:
    """Replicas of one cluster that share a ledger."""

    def __init__(self, tmp_path: Path, nats_url: str, **settings: str) -> None:
        self.ledger = tmp_path / "ledger.jsonl"
        self.running: list[subprocess.Popen[bytes]] = []
        self._environment = {
            "PATH": os.environ["PATH"],
            "STREAMSPACE_NATS_URL": nats_url,
            "STREAMSPACE_LOG_LEVEL": "ERROR",
            "STREAMSPACE_AGENT_CLUSTER_ID": CLUSTER,
            "STREAMSPACE_AGENT_RUNTIME": "null",
            "STREAMSPACE_AGENT_STATE_DIR": str(tmp_path / "state"),
            "STREAMSPACE_AGENT_NULL_LEDGER": str(self.ledger),
            "STREAMSPACE_AGENT_RETRY_FIRST": "0.1",
            **settings,
        }

    def start(self) -> None:
        self.running.append(
            subprocess.Popen(
                [sys.executable, "-m", "streamspace_agent"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
            )
        )

    def kill_one(self) -> None:
        process = self.running.pop(0)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def end_one(self) -> int:
        """Tell one to end, as a rolling restart does; its exit code."""
        process = self.running.pop(0)
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=60)

    def effects(self, effect: str) -> Counter[str]:
        """How often each session had an effect."""
        if not self.ledger.exists():
            return Counter()
        lines = (json.loads(line) for line in self.ledger.read_text().splitlines())
        return Counter(line["session"] for line in lines if line["effect"] == effect)


@pytest.fixture
def agents(tmp_path: Path, nats_server: Any, request: pytest.FixtureRequest) -> Iterator[Agents]:
    made = Agents(tmp_path, nats_server.url, **getattr(request, "param", {}))
    yield made
    while made.running:
        made.kill_one()


async def send(bus: Bus, kind: Any, session: SessionId, generation: int, **fields: Any) -> None:
    now = datetime.now(UTC)
    issued = kind(
        command_id=CommandId(f"cmd-{SESSIONS.index(session):06x}{generation:02x}"),
        session_id=session,
        cluster_id=CLUSTER,
        generation=generation,
        issued_at=now,
        deadline=now + timedelta(seconds=120),
        actor=Actor(id="system:test"),
        **fields,
    )
    await bus.publish(
        command(CLUSTER, session), issued.to_json(), command_headers(issued, source="test")
    )


@pytest.mark.parametrize("agents", [{"STREAMSPACE_AGENT_NULL_START_DELAY": "0.05"}], indirect=True)
async def test_commands_survive_agents_that_are_killed_and_take_effect_once(
    agents: Agents, bus: Bus, make_spec: Any
) -> None:
    await ensure_durable(bus, replace(agent_durable(CLUSTER), ack_wait=timedelta(seconds=2)))
    agents.start()
    agents.start()
    for session in SESSIONS:
        await send(bus, StartSession, session, 1, spec=make_spec(session))
    for share in (5, 20, 40):
        await eventually(lambda share=share: len(agents.effects("started")) >= share, timeout=30)
        agents.kill_one()
        agents.start()
    await eventually(lambda: len(agents.effects("started")) == len(SESSIONS), timeout=30)
    for session in SESSIONS:
        await send(bus, StopSession, session, 2)
    agents.kill_one()
    await eventually(lambda: len(agents.effects("removed")) == len(SESSIONS), timeout=30)

    assert set(agents.effects("started").values()) == {1}
    assert set(agents.effects("removed").values()) == {1}


@pytest.mark.parametrize(
    "agents",
    [{"STREAMSPACE_AGENT_NULL_FAILURE_RATE": "0.3", "STREAMSPACE_AGENT_NULL_SEED": "1"}],
    indirect=True,
)
async def test_failures_that_pass_are_overcome(agents: Agents, bus: Bus, make_spec: Any) -> None:
    await ensure_durable(bus, agent_durable(CLUSTER))
    agents.start()
    for session in SESSIONS:
        await send(bus, StartSession, session, 1, spec=make_spec(session))
    await eventually(lambda: len(agents.effects("started")) == len(SESSIONS), timeout=30)
    assert set(agents.effects("started").values()) == {1}


async def test_two_agents_share_the_work_of_a_cluster(
    agents: Agents, bus: Bus, make_spec: Any
) -> None:
    await ensure_durable(bus, agent_durable(CLUSTER))
    agents.start()
    agents.start()
    async with asyncio.timeout(30):
        for session in SESSIONS:
            await send(bus, StartSession, session, 1, spec=make_spec(session))
        await eventually(lambda: len(agents.effects("started")) == len(SESSIONS), timeout=30)
    with contextlib.suppress(IndexError):
        agents.kill_one()
    for session in SESSIONS:
        await send(bus, StopSession, session, 2)
    await eventually(lambda: len(agents.effects("removed")) == len(SESSIONS), timeout=30)


@pytest.mark.parametrize("agents", [{"STREAMSPACE_AGENT_NULL_START_DELAY": "0.2"}], indirect=True)
async def test_an_agent_that_is_told_to_end_hands_its_work_over(
    agents: Agents, bus: Bus, make_spec: Any
) -> None:
    """It finishes what it has in hand, and nothing waits for an acknowledgement to time out."""
    patient = replace(agent_durable(CLUSTER), ack_wait=timedelta(hours=1))
    await ensure_durable(bus, patient)
    agents.start()
    agents.start()
    for session in SESSIONS:
        await send(bus, StartSession, session, 1, spec=make_spec(session))
    await eventually(lambda: len(agents.effects("started")) >= 5, timeout=60)
    assert await asyncio.to_thread(agents.end_one) == 0
    await eventually(lambda: len(agents.effects("started")) == len(SESSIONS), timeout=60)
    assert set(agents.effects("started").values()) == {1}

    async def settled() -> bool:
        lag = await bus.consumer_lag(patient.stream, patient.name)
        return lag.pending == lag.ack_pending == 0

    await eventually(settled, timeout=60)
