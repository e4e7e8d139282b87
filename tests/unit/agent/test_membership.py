"""Heartbeats, inventories, enrolment and settings."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from streamspace_agent.domain import Observed
from streamspace_agent.enrolment import from_file, from_setting, join
from streamspace_agent.heartbeat import Identity, Pulse
from streamspace_agent.main import make_runtime
from streamspace_agent.offers import offered_capacity
from streamspace_agent.ports import PassingFailure
from streamspace_agent.runtimes.null import NullOptions, NullRuntime
from streamspace_agent.settings import AgentSettings
from streamspace_common.bus import Identity as BusIdentity
from streamspace_common.bus.credentials import creds
from streamspace_common.contracts.base import Message
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity, Heartbeat, Inventory, ResourceState
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.runtime.clock import SystemClock
from streamspace_common.runtime.supervisor import FatalError
from streamspace_common.testing.waiting import eventually

IDENTITY = Identity(ClusterId("lab"), "host-1", "1.2.3", "amd64", {"zone": "a"})


class Heard:
    """Announcements, in order."""

    def __init__(self) -> None:
        self.connected = True
        self.messages: list[Message] = []

    async def announce(self, message: Message) -> None:
        if self.connected:
            self.messages.append(message)

    def of(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]


class Holding(NullRuntime):
    """A runtime that holds what it was given."""

    def __init__(self, *held: Observed) -> None:
        super().__init__(
            Path("/nonexistent"), NullOptions(Capacity(max_sessions=7, cpu=2, memory=9))
        )
        self._given = held

    async def inventory(self) -> tuple[Observed, ...]:
        return self._given


def pulse(announcer: Heard, runtime: Holding, *, busy: tuple[SessionId, ...] = ()) -> Pulse:
    return Pulse(
        IDENTITY,
        runtime,
        announcer,
        SystemClock(),
        busy=lambda: busy,
        interval=0.001,
        inventory_interval=1000,
    )


RUNNING = Observed(SessionId("s1"), 3, ResourceState.RUNNING)
HIBERNATED = Observed(SessionId("s2"), 2, ResourceState.HIBERNATED)


async def test_a_heartbeat_says_who_it_is_and_what_it_can_hold() -> None:
    heard = Heard()
    await pulse(heard, Holding(RUNNING, HIBERNATED), busy=(SessionId("s3"),)).beat()
    (beat,) = heard.of(Heartbeat)
    assert (beat.cluster_id, beat.instance, beat.version) == ("lab", "host-1", "1.2.3")
    assert (beat.running_sessions, beat.busy_commands) == (1, 1)
    assert (beat.capacity.max_sessions, beat.runtime) == (7, RuntimeKind.NULL)
    assert not beat.draining


async def test_every_beat_after_the_goodbye_says_draining() -> None:
    heard = Heard()
    made = pulse(heard, Holding())
    await made.drain()
    await made.beat()
    assert [beat.draining for beat in heard.of(Heartbeat)] == [True, True]


async def test_an_inventory_names_what_is_held_and_what_is_being_worked_on() -> None:
    heard = Heard()
    await pulse(heard, Holding(RUNNING, HIBERNATED), busy=(SessionId("s3"),)).tell_inventory()
    (inventory,) = heard.of(Inventory)
    assert [(r.session_id, r.generation, r.state) for r in inventory.resources] == [
        ("s1", 3, ResourceState.RUNNING),
        ("s2", 2, ResourceState.HIBERNATED),
    ]
    assert inventory.busy == ("s3",)


class OutOfSight(Holding):
    """A runtime whose engine is away."""

    async def inventory(self) -> tuple[Observed, ...]:
        raise PassingFailure("the engine does not answer")

    async def trouble(self) -> str | None:
        return "The engine does not answer."


async def test_an_agent_whose_runtime_is_away_beats_on_and_reports_no_old_inventory() -> None:
    heard = Heard()
    made = pulse(heard, OutOfSight(RUNNING))
    await made.beat()
    await made.tell_inventory()
    (beat,) = heard.of(Heartbeat)
    assert beat.trouble == "The engine does not answer."
    assert heard.of(Inventory) == []


async def test_the_inventory_goes_out_after_each_connection_and_not_with_each_beat() -> None:
    heard = Heard()
    beating = asyncio.create_task(pulse(heard, Holding(RUNNING)).run())
    await eventually(lambda: len(heard.of(Heartbeat)) >= 5)
    assert len(heard.of(Inventory)) == 1
    heard.connected = False
    await asyncio.sleep(0.01)
    heard.connected = True
    await eventually(lambda: len(heard.of(Inventory)) == 2)
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


USER = BusIdentity.fresh()
ENROLMENT = {
    "clusterId": "lab",
    "natsUrls": ["nats://a:4222", "nats://b:4222"],
    "credentials": creds("eyJ0.e30.c2ln", USER.seed),
    "tunnelUrl": "wss://relay",
    "certificateAuthorities": "PEM",
}


def test_an_enrolment_gives_everything_and_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "enrolment.json"
    file.write_text(json.dumps(ENROLMENT))
    membership = join(from_file(file), tmp_path)
    assert membership.cluster == "lab"
    assert membership.nats_url == "nats://a:4222,nats://b:4222"
    assert membership.tunnel_url == "wss://relay"
    assert membership.ca_file is not None
    assert membership.ca_file.stat().st_mode & 0o777 == 0o600
    assert membership.enrolment is not None
    assert USER.seed in membership.enrolment().credentials
    # The enrolment's own credential is written nowhere else.
    assert [path.name for path in tmp_path.iterdir() if USER.seed in path.read_text()] == [
        file.name
    ]
    file.write_text(json.dumps({**ENROLMENT, "natsUrls": ["nats://c"]}))
    assert membership.enrolment().nats_urls == ("nats://c",)


@pytest.mark.parametrize(
    "value",
    [json.dumps(ENROLMENT), base64.b64encode(json.dumps(ENROLMENT).encode()).decode()],
    ids=["json", "base64"],
)
def test_an_enrolment_may_be_one_variable(tmp_path: Path, value: str) -> None:
    assert join(from_setting(SecretStr(value)), tmp_path).cluster == "lab"


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", "none", json.dumps({**ENROLMENT, "credentials": "SUA"})]
)
def test_what_is_no_enrolment_is_one_clear_sentence(tmp_path: Path, content: str) -> None:
    file = tmp_path / "enrolment.json"
    file.write_text(content)
    with pytest.raises(FatalError, match=r"enrolment\.json is not an enrolment"):
        join(from_file(file), tmp_path)
    with pytest.raises(FatalError, match="STREAMSPACE_AGENT_ENROLMENT is not an enrolment"):
        join(from_setting(SecretStr(content)), tmp_path)
    with pytest.raises(FatalError, match="cannot be read"):
        join(from_file(tmp_path / "missing"), tmp_path)


@pytest.mark.parametrize("kind", [RuntimeKind.PROCESS, RuntimeKind.DOCKER, RuntimeKind.NULL])
def test_an_agent_has_the_runtime_it_is_asked_for(tmp_path: Path, kind: RuntimeKind) -> None:
    state = tmp_path / "state"
    assert make_runtime(AgentSettings(runtime=kind, state_dir=state)).kind is kind


def test_an_unsafe_state_directory_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    with pytest.raises(FatalError, match="chmod 700"):
        make_runtime(AgentSettings(state_dir=tmp_path / "state"))


def test_capacity_is_what_the_machine_bears_unless_told() -> None:
    own = offered_capacity(AgentSettings())
    assert own.max_sessions >= 1
    assert own.memory > 2**20
    told = offered_capacity(AgentSettings(max_sessions=3, cpu=1.5, memory="2Gi"))
    assert told == Capacity(max_sessions=3, cpu=1.5, memory=2**31)
    assert offered_capacity(AgentSettings(cpu=8, memory="1Gi")).max_sessions == 2
