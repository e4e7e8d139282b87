"""What is special to the kubernetes runtime, on a real cluster."""

import asyncio
import dataclasses
import json
from contextlib import aclosing
from typing import Any

import pytest
from prometheus_client import REGISTRY
from tests.support.installation import MakeSpec
from tests.support.phases import Heard, ignore

from streamspace_agent.ports import PermanentFailure, SessionUnreachable, Superseded
from streamspace_agent.runtimes.kubernetes import kinds
from streamspace_agent.runtimes.kubernetes.errors import GoneError
from streamspace_agent.runtimes.kubernetes.options import OnDrift, Tunnel
from streamspace_common.contracts.catalog import ResourceAmounts
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, Reason
from streamspace_common.testing.waiting import eventually

S = SessionId("ada-terminal-00000001")
RUNNING = ResourceState.RUNNING


async def until(runtime: Any, state: ResourceState | None, *, timeout: float = 60) -> None:
    async def reached() -> bool:
        observed = await runtime.observe(S)
        return bool(observed is not None and observed.state is state)

    await eventually(reached, timeout=timeout, message=f"{S} never became {state}")


async def banner(runtime: Any, port: int = 5900) -> bytes:
    leg = await runtime.dial(S, port)
    received = bytearray()
    leg.attach(leg, lambda pieces: received.extend(b"".join(pieces)))
    await eventually(lambda: len(received) >= 12)
    leg.abort()
    await eventually(lambda: leg.ending is not None)
    return bytes(received)


# Starts that cannot succeed


async def test_an_image_that_does_not_exist_fails_at_once_with_words(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    heard = Heard()
    spec = make_spec(image="streamspace.test/no-such-image:7")
    with pytest.raises(PermanentFailure) as failed:
        await runtime.ensure_running(spec, 1, heard)
    # Without a way to any registry this is a name that cannot be resolved.
    assert failed.value.reason in {Reason.IMAGE_NOT_FOUND, Reason.IMAGE_UNAVAILABLE}
    assert "no-such-image:7" in str(failed.value)
    assert heard.reached == [Phase.SCHEDULED]
    assert heard.words[-1][0] is Phase.PULLING
    status = place.record(S)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", failed.value.reason)
    assert place.remains() == []


async def test_an_image_name_that_cannot_be_one_fails_at_once(
    make_runtime: Any, make_spec: MakeSpec
) -> None:
    runtime = await make_runtime()
    with pytest.raises(PermanentFailure, match="not a valid one") as failed:
        await runtime.ensure_running(make_spec(image="Not/A:Valid:Name"), 1, ignore)
    assert failed.value.reason is Reason.IMAGE_NOT_FOUND


async def test_a_desktop_that_ends_as_often_as_it_starts_is_told_with_its_last_words(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    with pytest.raises(PermanentFailure) as failed:
        await runtime.ensure_running(make_spec(env={"GEOMETRY": "no-size"}), 1, ignore)
    assert failed.value.reason is Reason.CRASH_LOOP
    assert "Its last words:" in str(failed.value)
    assert "no-size" in str(failed.value) or "geometry" in str(failed.value).lower()
    assert place.remains() == []


async def test_a_quota_that_is_used_up_fails_a_start_at_once(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    place.kubectl("create", "quota", "desktops", "--hard=pods=0")
    with pytest.raises(PermanentFailure) as failed:
        await runtime.ensure_running(make_spec(), 1, ignore)
    assert failed.value.reason is Reason.QUOTA_EXCEEDED
    assert "desktops" in str(failed.value)


async def test_a_session_that_no_node_has_room_for_says_so_when_patience_ends(
    make_runtime: Any, make_spec: MakeSpec
) -> None:
    runtime = await make_runtime(start_patience=5)
    huge = make_spec().model_copy(update={"resources": ResourceAmounts(cpu="200", memory="64Mi")})
    heard = Heard()
    with pytest.raises(PermanentFailure, match="not enough free CPU") as failed:
        await runtime.ensure_running(huge, 1, heard)
    assert failed.value.reason is Reason.UNSCHEDULABLE
    # Its user knew so all the time.
    assert heard.words == [(Phase.SCHEDULED, str(failed.value))]
    assert heard.reached == []


async def test_a_node_selector_that_fits_no_node_fails_at_once(
    make_runtime: Any, make_spec: MakeSpec
) -> None:
    runtime = await make_runtime(pods={"node_selector": {"pool": "nowhere"}})
    with pytest.raises(PermanentFailure, match="label") as failed:
        await runtime.ensure_running(make_spec(), 1, ignore)
    assert failed.value.reason is Reason.UNSCHEDULABLE


# Homes


async def test_a_home_outlives_hibernation_and_the_session_but_not_its_removal(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    await runtime.ensure_running(make_spec(), 1, ignore)
    place.inside(S, "echo kept > ~/note")
    await runtime.ensure_hibernated(make_spec(), 2)
    assert place.names("pods") == []
    assert place.record(S)["status"]["phase"] == "Hibernated"
    await runtime.ensure_running(make_spec(), 3, ignore)
    assert place.inside(S, "cat ~/note").strip() == "kept"

    await runtime.ensure_absent(S, 4, delete_home=False)
    assert place.names("persistentvolumeclaims") == ["persistentvolumeclaim/home-ada-00000000"]
    await runtime.ensure_running(make_spec(), 5, ignore)
    assert place.inside(S, "cat ~/note").strip() == "kept"

    await runtime.ensure_absent(S, 6, delete_home=True)
    await eventually(lambda: place.names("persistentvolumeclaims") == [], timeout=30)
    record = place.record(S)
    assert (record["spec"]["state"], record["status"]["phase"]) == ("terminated", "Terminated")
    assert record["status"]["terminatedAt"] >= record["metadata"]["creationTimestamp"]


async def test_a_home_that_another_session_uses_is_kept(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    other = SessionId("ada-terminal-00000002")
    await asyncio.gather(
        runtime.ensure_running(make_spec(), 1, ignore),
        runtime.ensure_running(make_spec(other), 1, ignore),
    )
    await runtime.ensure_absent(S, 2, delete_home=True)
    assert place.names("persistentvolumeclaims") != []
    await runtime.ensure_absent(other, 2, delete_home=False)


# What somebody else changes


async def test_a_pod_deleted_by_hand_is_brought_back(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    await runtime.ensure_running(make_spec(), 1, ignore)
    before = place.pod_of(S)
    place.kubectl("delete", "pod", before, "--wait=false")
    await until(runtime, ResourceState.STARTING, timeout=5)
    await until(runtime, RUNNING)
    assert place.pod_of(S) != before
    assert await banner(runtime) == b"RFB 003.008\n"
    await runtime.ensure_absent(S, 2, delete_home=False)


@pytest.mark.parametrize("what", ["pod", "deployment"])
async def test_what_was_deleted_by_hand_is_reported_where_the_policy_says_so(
    make_runtime: Any, make_spec: MakeSpec, place: Any, what: str
) -> None:
    runtime = await make_runtime(on_drift=OnDrift.REPORT)
    await runtime.ensure_running(make_spec(), 1, ignore)
    async with aclosing(runtime.watch()) as changes:
        name = S if what == "deployment" else place.pod_of(S)
        place.kubectl("delete", what, name, "--wait=false")
        async with asyncio.timeout(10):
            observed = await anext(changes)
    assert (observed.session_id, observed.state) == (S, ResourceState.DEAD)
    assert observed.death.reason is Reason.LOST
    assert "outside StreamSpace" in observed.death.message
    await eventually(lambda: place.remains() == [], timeout=30)


async def test_a_deployment_deleted_by_hand_is_made_again(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    await runtime.ensure_running(make_spec(), 1, ignore)
    place.kubectl("delete", "deployment", S, "--wait=false")
    await until(runtime, ResourceState.STARTING, timeout=5)
    await until(runtime, RUNNING)
    assert await banner(runtime) == b"RFB 003.008\n"
    await runtime.ensure_absent(S, 2, delete_home=False)


async def test_an_edited_deployment_is_put_right(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    await runtime.ensure_running(make_spec(), 1, ignore)
    place.kubectl("set", "env", f"deployment/{S}", "INTRUDER=yes")
    await until(runtime, ResourceState.STARTING, timeout=5)

    def intruded() -> bool:
        deployment = json.loads(place.kubectl("get", "deployment", S, "--output=json"))
        return "INTRUDER" in json.dumps(deployment["spec"])

    async def repaired() -> bool:
        observed = await runtime.observe(S)
        return bool(observed.state is RUNNING and not intruded())

    await eventually(repaired, timeout=90)
    await runtime.ensure_absent(S, 2, delete_home=False)


async def test_a_session_scaled_up_while_it_hibernates_is_put_to_rest_again(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    await runtime.ensure_running(make_spec(), 1, ignore)
    await runtime.ensure_hibernated(make_spec(), 2)
    place.kubectl("scale", "deployment", S, "--replicas=1")
    await eventually(
        lambda: place.kubectl("get", "deployment", S, "--output=jsonpath={.spec.replicas}") == "0",
        timeout=30,
    )
    await eventually(lambda: place.names("pods") == [], timeout=30)
    await runtime.ensure_absent(S, 3, delete_home=False)


async def test_resources_that_belong_to_no_session_are_removed_at_open(
    make_runtime: Any, place: Any
) -> None:
    labels = f"app.kubernetes.io/managed-by=streamspace-agent,stream.space/session={S}"
    place.kubectl("create", "service", "clusterip", S, "--tcp=5900:5900")
    place.kubectl("create", "deployment", S, "--image=streamspace.test/pause:1")
    for kind in ("service", "deployment"):
        place.kubectl("label", kind, S, *labels.split(","))
    await make_runtime()
    await eventually(lambda: place.names("services,deployments") == [], timeout=30)


async def test_resources_that_belong_to_no_session_are_removed_while_an_agent_runs(
    make_runtime: Any, place: Any
) -> None:
    await make_runtime(sweep_interval=1.0)
    labels = f"app.kubernetes.io/managed-by=streamspace-agent,stream.space/session={S}"
    place.kubectl("create", "deployment", S, "--image=streamspace.test/pause:1")
    # Its pods bear none of our labels: they go with their owner.
    place.kubectl("label", "deployment", S, *labels.split(","))
    await eventually(lambda: place.names("deployments,replicasets,pods") == [], timeout=60)


async def test_a_policy_deleted_by_hand_comes_back(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime(sweep_interval=1.0)
    await runtime.ensure_running(make_spec(), 1, ignore)
    place.kubectl("delete", "networkpolicy", S)
    await eventually(lambda: place.names("networkpolicies") != [], timeout=30)
    await runtime.ensure_absent(S, 2, delete_home=False)


# Two replicas


async def test_of_two_replicas_the_newer_generation_wins_whichever_acts_last(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    one, two = [await make_runtime() for _ in range(2)]
    for generation in range(1, 10, 2):
        results = await asyncio.gather(
            one.ensure_running(make_spec(), generation, ignore),
            two.ensure_absent(S, generation + 1, delete_home=False),
            return_exceptions=True,
        )
        assert isinstance(results[0], Superseded), results
        assert results[1] is None
        assert place.remains() == []
        for runtime in (one, two):
            await until(runtime, None)


async def test_a_stop_overtaken_by_a_wake_at_the_other_replica_leaves_the_session_running(
    make_runtime: Any, make_spec: MakeSpec
) -> None:
    one, two = [await make_runtime() for _ in range(2)]
    await one.ensure_running(make_spec(), 1, ignore)
    stopping = asyncio.create_task(one.ensure_absent(S, 2, delete_home=False))

    async def written() -> bool:
        observed = await two.observe(S)
        return bool(observed.generation == 2)

    await eventually(written)
    await two.ensure_running(make_spec(), 3, ignore)
    with pytest.raises(Superseded):
        await stopping
    await until(two, RUNNING)
    assert await banner(two) == b"RFB 003.008\n"
    await two.ensure_absent(S, 4, delete_home=False)


async def test_both_replicas_tell_of_a_death_under_one_name(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    one, two = [await make_runtime() for _ in range(2)]
    await one.ensure_running(make_spec(), 1, ignore)
    await until(two, RUNNING)
    async with aclosing(one.watch()) as first, aclosing(two.watch()) as second:
        await place.crash(S)
        async with asyncio.timeout(10):
            seen = [await anext(first), await anext(second)]
    assert seen[0].death == seen[1].death
    await one.ensure_absent(S, 2, delete_home=False)


# Streams


async def test_a_stream_carries_bytes_both_ways_through_the_api_server(
    make_runtime: Any, make_spec: MakeSpec
) -> None:
    runtime = await make_runtime(tunnel=Tunnel.PORT_FORWARD)
    await runtime.ensure_running(make_spec(), 1, ignore)
    leg = await runtime.dial(S, 5900)
    received = bytearray()
    leg.attach(leg, lambda pieces: received.extend(b"".join(pieces)))
    await eventually(lambda: bytes(received) == b"RFB 003.008\n")
    leg.write(b"RFB 003.008\n")
    # One security type: none.
    await eventually(lambda: bytes(received[12:]) == b"\x01\x01")
    leg.close()
    await eventually(lambda: leg.ending is not None)
    await runtime.ensure_absent(S, 2, delete_home=False)


async def test_a_pod_is_dialled_directly_once_its_policy_lets_one_in(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    await runtime.ensure_running(make_spec(), 1, ignore)
    within = await make_runtime(tunnel=Tunnel.POD)
    # Where the network enforces policies, this process is none of the agents' pods.
    place.kubectl("delete", "networkpolicy", S)

    async def answers() -> bool:
        try:
            return await banner(within) == b"RFB 003.008\n"
        except SessionUnreachable:
            return False

    await eventually(answers, timeout=20)
    await runtime.ensure_absent(S, 2, delete_home=False)


# The API server


async def test_a_start_goes_through_an_api_server_that_is_away_and_watches_resume(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    runtime = await make_runtime()
    with place.cluster.apiserver_down():
        starting = asyncio.create_task(runtime.ensure_running(make_spec(), 1, ignore))
        await eventually(lambda: runtime._picture.trouble() is not None, timeout=30)
        assert "does not answer" in await runtime.trouble()
        assert not starting.done()
    await starting
    await eventually(lambda: runtime._picture.trouble() is None, timeout=30)
    before = place.pod_of(S)
    place.kubectl("delete", "pod", before, "--wait=false")
    await until(runtime, ResourceState.STARTING, timeout=10)
    await until(runtime, RUNNING)
    await runtime.ensure_absent(S, 2, delete_home=False)


async def test_a_watch_from_too_old_a_version_is_told_so(make_runtime: Any) -> None:
    """Asked of `Session`: a server that never restarted remembers pods from version 1 on.

    A server's memory of a kind begins when its definition was applied, or when it started.
    """
    runtime = await make_runtime()
    with pytest.raises(GoneError):
        async for _ in runtime._api.watch(kinds.SESSION, "1", seconds=5):
            pass


async def test_watches_that_had_nothing_to_tell_for_many_turns_go_on_where_they_were(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    """An hour without a change is a dozen turns, each from the bookmark of the one before."""
    runtime = await make_runtime(watch_turn=2.0)
    await runtime.ensure_running(make_spec(), 1, ignore)
    turns, lists = requests("watch", "pods"), requests("list", "pods")
    await eventually(lambda: requests("watch", "pods") >= turns + 6, timeout=90)
    before = place.pod_of(S)
    place.kubectl("delete", "pod", before, "--wait=false")
    await until(runtime, ResourceState.STARTING, timeout=10)
    await until(runtime, RUNNING)
    assert requests("list", "pods") == lists
    await runtime.ensure_absent(S, 2, delete_home=False)


def requests(verb: str, resource: str) -> float:
    """How many such requests were answered with success, by this process's own count."""
    labels = {"verb": verb, "resource": resource, "code": "200"}
    return REGISTRY.get_sample_value("streamspace_agent_cluster_requests_total", labels) or 0.0


async def test_sessions_end_with_the_last_agent_and_come_back_with_the_next(
    make_runtime: Any, make_spec: MakeSpec, place: Any
) -> None:
    first = await make_runtime()
    await first.ensure_running(make_spec(), 1, ignore)
    place.inside(S, "echo kept > ~/note")
    await first.close(stop_sessions=True)
    assert place.names("pods") == []
    second = await make_runtime()
    await until(second, RUNNING)
    assert place.inside(S, "cat ~/note").strip() == "kept"
    await second.ensure_absent(S, 2, delete_home=True)


async def test_fifty_starts_at_once_all_end(make_runtime: Any, make_spec: MakeSpec) -> None:
    """Of pods that no node takes: what is tested is that nothing of ours stands in the way."""
    runtime = await make_runtime(start_patience=20, pods={"node_selector": {"pool": "nowhere"}})
    sessions = [SessionId(f"ada-terminal-000001{i:02}") for i in range(50)]
    results = await asyncio.gather(
        *(runtime.ensure_running(make_spec(session), 1, ignore) for session in sessions),
        return_exceptions=True,
    )
    assert all(isinstance(result, PermanentFailure) for result in results), results
    assert await runtime.inventory() == ()


def test_no_setting_is_left_out() -> None:
    """The runtime's options all come from the agent's settings, or have a reason not to."""
    from streamspace_agent.offers import kubernetes_options
    from streamspace_agent.runtimes.kubernetes.options import PodOptions
    from streamspace_agent.settings import AgentSettings

    made = kubernetes_options(AgentSettings(_env_file=None)).pods
    assert dataclasses.asdict(made) == dataclasses.asdict(PodOptions())
