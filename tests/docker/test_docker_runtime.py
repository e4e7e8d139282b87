"""What the docker runtime does beyond the behaviour of every runtime, on a real engine."""

import asyncio
import re
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.support import images
from tests.support.engine import Engine, EngineError
from tests.support.images import File, Image
from tests.support.installation import Installation
from tests.support.phases import Heard, ignore
from tests.support.registry import Registry

from streamspace_agent.ports import PassingFailure, PermanentFailure, Superseded
from streamspace_agent.runtimes.docker.runtime import DockerRuntime
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, Reason
from streamspace_common.testing.waiting import eventually

S = SessionId("ada-terminal-00000001")
OTHER = SessionId("bob-terminal-00000002")

KILL_DISPLAY = """
for process in /proc/[0-9]*; do
  case "$(cat $process/comm)" in Xtigervnc|Xvnc) kill -9 "${process#/proc/}";; esac
done
"""


def inside(engine: Engine, prefix: str, command: str, session: SessionId = S) -> str:
    """What a shell command in the session's container prints."""
    return engine.docker("exec", container_of(engine, prefix, session), "sh", "-c", command)


def container_of(engine: Engine, prefix: str, session: SessionId = S) -> str:
    (name,) = names(engine, f"{prefix}-{session}.")
    return name


def names(engine: Engine, begin: str) -> list[str]:
    found = engine.docker("container", "ls", "--all", "--format", "{{.Names}}").split()
    return [name for name in found if name.startswith(begin)]


def volumes(engine: Engine, begin: str) -> list[str]:
    found = engine.docker("volume", "ls", "--format", "{{.Name}}").split()
    return sorted(name for name in found if name.startswith(begin))


async def state(runtime: Any, session: SessionId = S) -> Any:
    observed = await runtime.observe(session)
    return observed.state if observed else None


@pytest.fixture
async def runtime(installation: Installation) -> DockerRuntime:
    assert isinstance(installation.runtime, DockerRuntime)
    return installation.runtime


async def test_a_home_outlives_its_session_and_is_found_again(
    runtime: DockerRuntime, make_spec: Any, engine: Engine, prefix: str
) -> None:
    await runtime.ensure_running(make_spec(), 1, ignore)
    inside(engine, prefix, "echo hello > $HOME/note")
    await runtime.ensure_hibernated(make_spec(), 2)
    assert names(engine, prefix) == []
    await runtime.ensure_running(make_spec(), 3, ignore)
    assert inside(engine, prefix, "cat $HOME/note") == "hello"
    await runtime.ensure_absent(S, 4, delete_home=False)

    await runtime.ensure_running(make_spec(OTHER), 1, ignore)
    assert inside(engine, prefix, "cat $HOME/note", OTHER) == "hello"


async def test_a_home_is_deleted_when_asked_and_nobody_else_uses_it(
    runtime: DockerRuntime, make_spec: Any, engine: Engine, prefix: str
) -> None:
    await runtime.ensure_running(make_spec(), 1, ignore)
    await runtime.ensure_running(make_spec(OTHER), 1, ignore)
    await runtime.ensure_hibernated(make_spec(OTHER), 2)
    await runtime.ensure_absent(S, 2, delete_home=True)
    assert volumes(engine, f"{prefix}-home") == [f"{prefix}-home-ada-00000000"]

    await runtime.ensure_absent(OTHER, 3, delete_home=True)
    assert volumes(engine, f"{prefix}-home") == []


async def test_a_temporary_home_sleeps_with_its_session_and_ends_with_it(
    runtime: DockerRuntime, make_spec: Any, engine: Engine, prefix: str
) -> None:
    spec = make_spec(persistent_home=False)
    await runtime.ensure_running(spec, 1, ignore)
    inside(engine, prefix, "echo hello > $HOME/note")
    await runtime.ensure_hibernated(spec, 2)
    await runtime.ensure_running(spec, 3, ignore)
    assert inside(engine, prefix, "cat $HOME/note") == "hello"

    await runtime.ensure_absent(S, 4, delete_home=False)
    assert volumes(engine, f"{prefix}-") == [f"{prefix}-{S}.4"]  # the word that it was stopped


async def test_a_session_is_limited_and_confined(
    runtime: DockerRuntime, make_spec: Any, engine: Engine, prefix: str
) -> None:
    await runtime.ensure_running(make_spec(), 1, ignore)
    host = engine.inspect(container_of(engine, prefix))["HostConfig"]

    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (10**9, 2 * 2**30, 4096)
    assert host["PortBindings"] in (None, {})
    assert not host["Privileged"]
    assert "524288" in inside(engine, prefix, "df -k /dev/shm")
    status = inside(engine, prefix, "cat /proc/self/status")
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


async def test_sessions_do_not_reach_each_other(
    runtime: DockerRuntime, make_spec: Any, engine: Engine, prefix: str
) -> None:
    await runtime.ensure_running(make_spec(), 1, ignore)
    await runtime.ensure_running(make_spec(OTHER), 1, ignore)
    networks = engine.inspect(container_of(engine, prefix, OTHER))["NetworkSettings"]["Networks"]
    address = networks[f"{prefix}-sessions"]["IPAddress"]
    # The address answers, for whoever is let through.
    leg = await runtime.dial(OTHER, 5900)
    leg.abort()
    await eventually(lambda: leg.ending is not None)

    tried = f"timeout 2 bash -c 'head -c 3 < /dev/tcp/{address}/5900' || echo refused"
    assert inside(engine, prefix, tried) == "refused"


async def test_an_overtaken_start_does_not_touch_the_desktop_a_newer_one_took_over(
    installation: Installation, make_spec: Any, engine: Engine, prefix: str
) -> None:
    other = await installation.another()
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    before = engine.inspect(container_of(engine, prefix))["Id"]
    await other.ensure_running(make_spec(), 3, ignore)
    with pytest.raises(Superseded):
        await installation.runtime.ensure_hibernated(make_spec(), 2)
    with pytest.raises(Superseded):
        await installation.runtime.ensure_running(make_spec(), 1, ignore)

    assert container_of(engine, prefix) == f"{prefix}-{S}.3"
    assert engine.inspect(container_of(engine, prefix))["Id"] == before


async def test_one_start_that_reaches_two_agents_makes_one_desktop(
    installation: Installation, make_spec: Any, engine: Engine, prefix: str
) -> None:
    other = await installation.another()
    results = await asyncio.gather(
        *(each.ensure_running(make_spec(), 1, ignore) for each in (installation.runtime, other)),
        return_exceptions=True,
    )
    # One of them may be told to try again, and then finds it done.
    assert all(result is None or isinstance(result, PassingFailure) for result in results)
    await other.ensure_running(make_spec(), 1, ignore)
    assert names(engine, f"{prefix}-") == [f"{prefix}-{S}.1"]


async def test_commands_thrown_at_two_agents_end_in_what_the_last_word_said(
    installation: Installation, make_spec: Any, engine: Engine, prefix: str
) -> None:
    other = await installation.another()
    agents = [installation.runtime, other]
    steps = [
        lambda agent, g: agent.ensure_running(make_spec(), g, ignore),
        lambda agent, g: agent.ensure_hibernated(make_spec(), g),
        lambda agent, g: agent.ensure_absent(S, g, delete_home=False),
    ]

    async def carry_out(generation: int) -> None:
        for _ in range(5):
            try:
                await steps[generation % 3](agents[generation % 2], generation)
            except PassingFailure:
                continue
            except Superseded:
                pass
            return
        raise AssertionError("never carried out")

    await asyncio.gather(*(carry_out(generation) for generation in range(1, 13)))
    await carry_out(12)  # 12 % 3 == 0: a start

    observed = await other.observe(S)
    assert observed is not None
    assert (observed.generation, observed.state) == (12, ResourceState.RUNNING)
    assert names(engine, f"{prefix}-") == [f"{prefix}-{S}.12"]
    assert await agents[0].inventory() == (observed,)


async def test_a_container_removed_by_hand_is_told_within_seconds(
    runtime: DockerRuntime, make_spec: Any, engine: Engine, prefix: str
) -> None:
    await runtime.ensure_running(make_spec(), 1, ignore)
    async with aclosing(runtime.watch()) as changes:
        engine.docker("rm", "--force", container_of(engine, prefix))
        async with asyncio.timeout(5):
            observed = await anext(changes)
    assert (observed.session_id, observed.state) == (S, ResourceState.DEAD)
    assert await state(runtime) is None


async def test_a_death_says_how_and_with_which_words(
    runtime: DockerRuntime, make_spec: Any, engine: Engine, prefix: str
) -> None:
    await runtime.ensure_running(make_spec(), 1, ignore)
    async with aclosing(runtime.watch()) as changes:
        # The command may be cut off by the end that it brings about.
        with suppress(EngineError):
            inside(engine, prefix, "echo the disk melted > /proc/1/fd/2;" + KILL_DISPLAY)
        async with asyncio.timeout(5):
            observed = await anext(changes)
    assert observed.death is not None
    assert observed.death.message.startswith("The desktop was killed by SIGKILL. Its last words: ")
    again = await runtime.observe(S)
    assert again is not None and again.death is not None
    assert again.death.incarnation == observed.death.incarnation


async def test_what_is_ended_on_purpose_is_no_death(runtime: DockerRuntime, make_spec: Any) -> None:
    await runtime.ensure_running(make_spec(), 1, ignore)
    await runtime.ensure_hibernated(make_spec(), 2)
    await runtime.ensure_running(make_spec(), 3, ignore)
    await runtime.ensure_absent(S, 4, delete_home=False)
    # The engine tells in order: this one's death comes after all there was to tell before.
    await runtime.ensure_running(make_spec(OTHER), 1, ignore)
    async with aclosing(runtime.watch()) as changes:
        client = runtime._engine
        (held,) = await runtime._holdings.of(OTHER)
        await client.stop(held.container.id, 0)
        async with asyncio.timeout(5):
            assert (await anext(changes)).session_id == OTHER


async def test_a_restarted_engine_is_followed_again_and_its_dead_are_told(
    runtime: DockerRuntime, make_spec: Any, engine: Engine
) -> None:
    await runtime.ensure_running(make_spec(), 1, ignore)
    async with aclosing(runtime.watch()) as changes:
        with engine.away():
            trouble = await runtime.trouble()
            assert trouble is not None and "does not answer" in trouble
            with pytest.raises(PassingFailure):
                await runtime.ensure_running(make_spec(OTHER), 1, ignore)
        async with asyncio.timeout(10):
            observed = await anext(changes)
        assert (observed.session_id, observed.state) == (S, ResourceState.DEAD)
        assert observed.death is not None
        assert "engine" in observed.death.message
    assert await runtime.trouble() is None
    await runtime.ensure_running(make_spec(OTHER), 1, ignore)
    assert await state(runtime, OTHER) is ResourceState.RUNNING


async def test_sessions_ended_with_their_agent_are_started_again_by_the_next(
    installation: Installation, make_spec: Any, engine: Engine, prefix: str
) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    inside(engine, prefix, "echo hello > /tmp/note")
    await installation.runtime.close(stop_sessions=True)
    assert installation.remains() == []

    later = await installation.another()

    async def runs() -> bool:
        return await state(later) is ResourceState.RUNNING

    await eventually(runs, timeout=20)
    assert inside(engine, prefix, "cat /tmp/note") == "hello"


async def test_a_start_whose_agent_was_killed_is_taken_up_where_it_stood(
    installation: Installation, make_spec: Any, engine: Engine, prefix: str
) -> None:
    # What an agent leaves that dies between starting the container and its first answer.
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    engine.docker("rename", f"{prefix}-{S}.1", f"{prefix}-{S}.1.starting")
    later = await installation.another()
    assert await state(later) is ResourceState.STARTING
    before = engine.inspect(container_of(engine, prefix))["Id"]

    await later.ensure_running(make_spec(), 1, ignore)
    assert engine.inspect(container_of(engine, prefix))["Id"] == before
    assert await state(later) is ResourceState.RUNNING


async def test_a_removal_that_was_cut_short_is_finished_by_the_next_agent(
    installation: Installation, make_spec: Any, engine: Engine, prefix: str
) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    engine.docker("rename", f"{prefix}-{S}.1", f"{prefix}-{S}.1.ending-abc")
    await installation.another()
    await eventually(lambda: names(engine, prefix) == [], timeout=20)


async def test_a_desktop_that_ends_before_it_answers_fails_at_once_with_its_words(
    runtime: DockerRuntime, make_spec: Any, engine: Engine, prefix: str, broken_image: str
) -> None:
    with pytest.raises(PermanentFailure) as failure:
        await runtime.ensure_running(make_spec(image=broken_image), 1, ignore)
    assert "exit code 7" in str(failure.value)
    assert "no display today" in str(failure.value)
    assert names(engine, prefix) == []
    assert volumes(engine, f"{prefix}-home") != []  # homes are never thrown away by accident


async def test_an_image_that_cannot_be_run_is_told_so(
    runtime: DockerRuntime, make_spec: Any, unstartable_image: str
) -> None:
    with pytest.raises(PermanentFailure) as failure:
        await runtime.ensure_running(make_spec(image=unstartable_image), 1, ignore)
    assert failure.value.reason is Reason.UNSUPPORTED_TEMPLATE


async def test_an_image_that_does_not_exist_fails_for_good(
    runtime: DockerRuntime, make_spec: Any, registry: Registry
) -> None:
    heard = Heard()
    with pytest.raises(PermanentFailure) as failure:
        await runtime.ensure_running(make_spec(image=f"{registry.address}/no/such:1"), 1, heard)
    assert failure.value.reason is Reason.IMAGE_NOT_FOUND
    assert heard.reached == [Phase.SCHEDULED]
    assert heard.words == [(Phase.PULLING, "Fetching the image.")]


async def test_an_image_that_is_denied_fails_for_good(
    runtime: DockerRuntime, make_spec: Any, registry: Registry
) -> None:
    with pytest.raises(PermanentFailure) as failure:
        await runtime.ensure_running(make_spec(image=f"{registry.address}/private/a:1"), 1, ignore)
    assert failure.value.reason is Reason.IMAGE_DENIED


async def test_a_registry_in_trouble_is_tried_again(
    runtime: DockerRuntime, make_spec: Any, registry: Registry, engine: Engine
) -> None:
    with pytest.raises(PassingFailure):
        await runtime.ensure_running(make_spec(image=f"{registry.address}/broken/a:1"), 1, ignore)
    with pytest.raises(PassingFailure):
        await runtime.ensure_running(make_spec(image=f"{engine.here}:9/nobody/there:1"), 2, ignore)


async def test_an_image_that_is_not_here_is_pulled(
    runtime: DockerRuntime,
    make_spec: Any,
    registry: Registry,
    engine: Engine,
    desktop_archive: Path,
) -> None:
    image = f"{registry.address}/desk/top:1"
    registry.serve("desk/top", "1", desktop_archive)
    heard = Heard()
    try:
        await runtime.ensure_running(make_spec(image=image), 1, heard)
        assert heard.reached == list(Phase)
        assert heard.words[0] == (Phase.PULLING, "Fetching the image.")
    finally:
        await runtime.ensure_absent(S, 2, delete_home=False)
        engine.docker("image", "rm", image)


async def test_what_was_fetched_is_told_by_its_weight(
    runtime: DockerRuntime, make_spec: Any, registry: Registry, engine: Engine
) -> None:
    weight = Random(1).randbytes(8_000_000)
    archive = images.archive(Image("streamspace.test/weight:1", files={"weight": File(weight)}))
    registry.serve("a/weight", "1", archive)
    image = f"{registry.address}/a/weight:1"
    heard = Heard()
    # There is nothing in it to start.
    with pytest.raises(PermanentFailure):
        await runtime.ensure_running(make_spec(image=image), 1, heard)
    told = heard.outcomes[Phase.PULLING] or ""
    assert re.fullmatch(r"8\.0 MB in \d+ s\.", told), told
    engine.docker("image", "rm", image)


async def test_capacity_is_that_of_the_engines_machine(
    runtime: DockerRuntime, engine: Engine
) -> None:
    cpus, memory = engine.docker("info", "--format", "{{.NCPU}} {{.MemTotal}}").split()
    offered = await runtime.capacity()
    assert (offered.cpu, offered.memory) == (float(cpus), int(memory))


async def test_two_installations_share_an_engine_unseen(
    installation: Installation, make_spec: Any, make_runtime: Callable[..., Any], stranger: str
) -> None:
    await installation.runtime.ensure_running(make_spec(), 1, ignore)
    other = make_runtime(prefix=stranger)
    await other.open()
    try:
        assert await other.inventory() == ()
        assert await other.observe(S) is None
        await other.ensure_absent(S, 9, delete_home=True)
    finally:
        await other.close(stop_sessions=False)
    observed = await installation.runtime.observe(S)
    assert observed is not None
    assert (observed.generation, observed.state) == (1, ResourceState.RUNNING)
