"""The generation that decides who may still act."""

import asyncio
import os
from pathlib import Path

import pytest

from streamspace_agent.ports import Superseded
from streamspace_agent.runtimes.process.fences import KEPT_FOR, Fences
from streamspace_common.contracts.ids import SessionId
from streamspace_common.testing.waiting import eventually

S = SessionId("s1")


def test_a_generation_only_grows(tmp_path: Path) -> None:
    fences = Fences(tmp_path)
    assert fences.current(S) == 0
    fences.raise_to(S, 3)
    fences.raise_to(S, 3)
    with pytest.raises(Superseded) as refused:
        fences.raise_to(S, 2)
    assert refused.value.newer_generation == 3
    assert Fences(tmp_path).current(S) == 3


async def test_only_one_works_on_a_session_and_a_newer_command_need_not_wait_to_say_so(
    tmp_path: Path,
) -> None:
    fences, other = Fences(tmp_path), Fences(tmp_path)
    fences.raise_to(S, 1)
    order: list[str] = []

    async def work() -> None:
        async with other.hold(S):
            order.append("second")

    async with fences.hold(S):
        assert other.is_held(S)
        waiting = asyncio.create_task(work())
        other.raise_to(S, 2)
        with pytest.raises(Superseded):
            fences.check(S, 1)
        order.append("first")
    await waiting
    assert order == ["first", "second"]
    assert not fences.is_held(S)


async def test_sessions_do_not_wait_for_each_other(tmp_path: Path) -> None:
    fences = Fences(tmp_path)
    async with fences.hold(S), fences.hold(SessionId("s2")):
        assert fences.is_held(S)


async def test_old_fences_are_forgotten_unless_needed_or_held(tmp_path: Path) -> None:
    fences = Fences(tmp_path)
    for name in ("old", "kept", "held", "young"):
        fences.raise_to(SessionId(name), 1)
        if name != "young":
            os.utime(tmp_path / name, (0, 0))
    async with fences.hold(SessionId("held")):
        pruned = fences.prune(lambda session: session == "kept", KEPT_FOR)
    assert pruned == 1
    assert set(fences.sessions()) == {"kept", "held", "young"}


async def test_a_lock_taken_on_a_file_that_was_pruned_meanwhile_is_taken_again(
    tmp_path: Path,
) -> None:
    fences, other = Fences(tmp_path), Fences(tmp_path)
    holding = asyncio.Event()
    release = asyncio.Event()

    async def hold() -> None:
        async with other.hold(S):
            holding.set()
            await release.wait()

    async with fences.hold(S):
        waiting = asyncio.create_task(hold())
        await asyncio.sleep(0)
        (tmp_path / S).unlink()
    await eventually(holding.is_set)
    assert fences.is_held(S)
    release.set()
    await waiting
