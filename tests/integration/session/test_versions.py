"""Agents one release behind their control plane, and ahead of it."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamspace_common.bus import Bus
from streamspace_common.contracts.clusters import Presence
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.requests import SessionMethods
from streamspace_common.contracts.sessions import Phase, Reason, SessionState
from streamspace_common.protogen import corpus
from streamspace_common.testing.versions import (
    AgentOfOtherVersion,
    FromTheFuture,
    OfRelease,
    Speech,
    publish_unheard_of,
)
from streamspace_common.testing.waiting import eventually


@dataclass
class Instead:
    """A speech with another reason in place of one."""

    reason: str
    other: str
    speech: Speech

    def heard(self, type_name: str, payload: bytes) -> bytes:
        return self.speech.heard(type_name, payload)

    def said(self, type_name: str, payload: bytes) -> bytes:
        return self.speech.said(type_name, payload).replace(
            f'"{self.reason}"'.encode(), f'"{self.other}"'.encode()
        )


@dataclass
class Adding:
    """A speech with another phase in each start."""

    phase: str
    speech: Speech

    def heard(self, type_name: str, payload: bytes) -> bytes:
        return self.speech.heard(type_name, payload)

    def said(self, type_name: str, payload: bytes) -> bytes:
        content = json.loads(self.speech.said(type_name, payload))
        if content.get("phases"):
            content["phases"].insert(1, {"phase": self.phase, "elapsedMs": 1.5})
        return json.dumps(content).encode()


LAST = corpus.releases(Path(__file__).parents[3] / "proto")[-1]
SPEECHES = {
    "one behind": (OfRelease(LAST), "0.0.1"),
    "one ahead": (FromTheFuture(), "99.0.0"),
}


@pytest.fixture(params=SPEECHES)
async def other(world, request):
    """A cluster whose agent is of another version."""
    speech, version = SPEECHES[request.param]
    await world.start()
    await world.template()
    await world.enrol("lab")
    bus = await Bus.connect(world.nats.url, name="agent-lab")
    world.connections.append(bus)
    agent = AgentOfOtherVersion(bus, ClusterId("lab"), speech=speech, version=version)
    world.agents.append(agent)
    await agent.start(inventory=False)
    await eventually(lambda: world.is_("lab", Presence.ONLINE))
    return agent


async def test_a_session_lives_its_whole_life_on_it(world, other):
    session = await world.running()
    assert [timing.phase for timing in session.phases] == [Phase.CREATED, Phase.READY]
    await world.ask(SessionMethods.HIBERNATE, session.id)
    await world.reaches(session.id, SessionState.HIBERNATED)
    await world.ask(SessionMethods.WAKE, session.id)
    await world.reaches(session.id, SessionState.RUNNING)
    await world.delete(session.id)
    await world.reaches(session.id, SessionState.TERMINATED)
    assert other.actions(session.id) == [
        "start_session",
        "hibernate_session",
        "wake_session",
        "stop_session",
    ]
    assert [command.state for command in await world.commands(session.id)] == ["completed"] * 4


async def test_its_failures_and_inventories_are_understood(world, other):
    dying, missing = await world.running(), await world.running()
    await other.die(dying.id)
    failed = await world.reaches(dying.id, SessionState.FAILED)
    assert failed.reason is Reason.DESKTOP_DIED
    other.holds.pop(missing.id)
    await other.tell_inventory()
    # It is brought up again, since nothing is left of it.
    await eventually(lambda: other.actions(missing.id) == ["start_session"] * 2)


async def test_operators_see_who_is_behind(world, other):
    shown = await world.cluster("lab")
    [instance] = shown.instances
    assert instance.version == other.version
    assert instance.behind is (other.version == "0.0.1")


async def test_kinds_of_messages_that_nobody_knows_are_passed_over(world, other):
    session = await world.running()
    await publish_unheard_of(other.bus, "lab", session.id)
    again = await world.running()
    assert (await world.get(session.id)).state is SessionState.RUNNING
    assert again.state is SessionState.RUNNING
    assert await world.is_("lab", Presence.ONLINE)


async def test_a_failure_for_a_reason_nobody_knows_yet_is_a_failure_all_the_same(world, other):
    other.failing["start_session"] = Reason.NO_SPACE
    other.bus.speech = Instead("no-space", "meteor-strike", other.speech)
    session = (await world.create()).session
    failed = await world.reaches(session.id, SessionState.FAILED)
    assert failed.reason is Reason.OTHER
    assert failed.message == "no-space, as told."


async def test_a_start_with_a_phase_nobody_knows_yet_is_a_start_all_the_same(world, other):
    other.phases = (Phase.CREATED, Phase.READY)
    other.bus.speech = Adding("warming", other.speech)
    session = await world.running()
    assert [timing.phase for timing in session.phases] == [Phase.CREATED, Phase.READY]
