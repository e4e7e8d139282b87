"""The file of effects, around a real runtime of each kind."""

import asyncio
import json
from contextlib import aclosing

import pytest

from streamspace_agent.effects import EffectsFile, EffectsFileError, Recorded
from streamspace_agent.ports import Superseded
from streamspace_common.contracts.ids import SessionId
from streamspace_common.testing.clock import FakeClock

S = SessionId("ada-terminal-00000001")


def ignore(_phase, _message=None, /, *, ongoing=False):
    pass


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit" / "effects.jsonl"


@pytest.fixture
async def runtime(installation, path):
    file = EffectsFile(path, "agent-1", FakeClock())
    file.open()
    return Recorded(installation.runtime, file)


def told(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["work"], line["generation"], line["effect"], line["step"]) for line in lines]


async def test_every_effect_is_told_when_it_begins_and_when_it_ends(runtime, make_spec, path):
    await runtime.ensure_running(make_spec(), 1, ignore)
    await runtime.ensure_running(make_spec(), 2, ignore)
    await runtime.ensure_hibernated(make_spec(), 3)
    with pytest.raises(Superseded):
        await runtime.ensure_running(make_spec(), 2, ignore)
    await runtime.ensure_absent(S, 4, delete_home=False)
    assert told(path) == [
        (1, 1, "running", "begun"), (1, 1, "running", "done"),
        (2, 2, "running", "begun"), (2, 2, "running", "found"),
        (3, 3, "hibernated", "begun"), (3, 3, "hibernated", "done"),
        (4, 2, "running", "begun"), (4, 2, "running", "superseded"),
        (5, 4, "absent", "begun"), (5, 4, "absent", "done"),
    ]  # fmt: skip
    line = json.loads(path.read_text().splitlines()[0])
    assert (line["session"], line["instance"]) == (S, "agent-1")
    assert line["time"] == "2026-01-01T12:00:00.000000Z"


async def test_a_start_that_is_cut_short_says_so(runtime, make_spec, path):
    begun = asyncio.Event()

    def reached(_phase, _message=None, /, *, ongoing=False):
        begun.set()

    start = asyncio.create_task(runtime.ensure_running(make_spec(), 1, reached))
    async with asyncio.timeout(20):
        await begun.wait()
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    assert told(path)[-1] == (1, 1, "running", "cut-short")


async def test_a_death_is_told(installation, runtime, make_spec, path):
    await runtime.ensure_running(make_spec(), 1, ignore)
    async with aclosing(runtime.watch()) as changes:
        await installation.kill(installation.runtime, S)
        async with asyncio.timeout(20):
            await anext(changes)
    assert told(path)[-1] == (2, 1, "dead", "found")


async def test_a_file_that_cannot_be_written_to_any_more_stops_no_session(runtime, make_spec, path):
    path.unlink()
    path.mkdir()
    await runtime.ensure_running(make_spec(), 1, ignore)
    assert len(await runtime.inventory()) == 1


def test_a_wrong_path_is_found_out_at_the_start(tmp_path):
    with pytest.raises(EffectsFileError, match="cannot be written to"):
        EffectsFile(tmp_path, "agent-1", FakeClock()).open()
