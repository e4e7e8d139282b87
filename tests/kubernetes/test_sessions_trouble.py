"""What becomes of sessions on Kubernetes when agents, the API server or pods go away."""

import asyncio
import collections
import contextlib
import signal

import pytest
import websockets
from tests.kubernetes.fake_node import FakeNode
from tests.kubernetes.onenode.given import GivenCluster
from tests.kubernetes.sites import LATE_IMAGE, MISSING_IMAGE
from tests.kubernetes.viewing import (
    PATIENCE,
    act,
    begin,
    connect,
    dial,
    history,
    start,
    stop,
    viewing,
)
from tests.support import images

from streamspace_common.testing.waiting import eventually

pytestmark = pytest.mark.timeout(900)

_OUTAGE = 20
"""Seconds without an API server."""
_SEEN = 30
"""Seconds until somebody else's doing shows. Five would do, with a machine to oneself."""


async def test_an_agent_killed_mid_start_finishes_it_after_its_restart_exactly_once(
    user, site, cluster
):
    with late_image(cluster) as arrives:
        session = await begin(user, site, "late")
        # Its image is nowhere to be had, so the start is half done for as long as we like.
        await eventually(lambda: waits_for_its_image(site, session), timeout=PATIENCE)
        site.agents[-1].kill()
        assert (await user.session(session))["state"] == "starting"
        arrives()
        site.start_agent()
        await user.wait_for(session, "running", seconds=2 * PATIENCE)
        async with viewing(user, session) as viewer:
            assert len(viewer.colours) > 1
        seen = await states(user, session, until="running")
        assert seen.count("running") == 1
        # It is unknown if the agent was away for long.
        assert set(seen) <= {"starting", "unknown", "running"}
        assert len(site.pods_ever_placed(session)) == 1
        assert site.record(session)["spec"]["generation"] == 1
        await stop(user, session)


async def test_starts_survive_an_api_server_that_is_away_for_twenty_seconds(user, site, cluster):
    site.may_be_forbidden = True
    sessions = [await begin(user, site) for _ in range(4)]
    await eventually(lambda: site.get("deployments"), timeout=PATIENCE)
    with cluster.apiserver_down():
        sessions += [await begin(user, site) for _ in range(2)]
        await asyncio.sleep(_OUTAGE)
    for session in sessions:
        await user.wait_for(session, "running", seconds=2 * PATIENCE)
    for session in sessions:
        assert site.pod(session)["status"]["phase"] == "Running"
        assert (await states(user, session, until="running"))[-1] == "running"
        async with viewing(user, session) as viewer:
            assert len(viewer.colours) > 1
    await stop(user, *sessions)


async def test_a_running_session_does_not_mind_an_api_server_that_is_away(user, site, cluster):
    session = await start(user, site)
    pod = site.pod(session)["metadata"]["uid"]
    site.may_be_forbidden = True
    with cluster.apiserver_down():
        await asyncio.sleep(_OUTAGE)
    assert site.pod(session)["metadata"]["uid"] == pod
    async with viewing(user, session) as viewer:
        assert len(viewer.colours) > 1
    assert await states(user, session, until="running") == ["starting", "running"]
    await stop(user, session)


async def test_an_image_that_does_not_exist_fails_the_session_and_is_named(user, site):
    session = await begin(user, site, "missing")
    failed = await user.wait_for(session, "failed", seconds=PATIENCE)
    assert failed["reason"] in {"image-not-found", "image-unavailable"}
    assert MISSING_IMAGE in failed["message"]
    told = [event.data["timing"] for event in await history(user, session, "phase", until="failed")]
    assert [each["phase"] for each in told if not each["ongoing"]] == ["scheduled"]
    assert any(MISSING_IMAGE in each["message"] for each in told if each["ongoing"])
    assert await states(user, session, until="failed") == ["starting", "failed"]
    await eventually(lambda: site.left_of(session) == [], timeout=PATIENCE)
    assert site.record(session)["status"]["phase"] == "Failed"


async def test_a_desktop_that_ends_at_once_fails_the_session_with_its_last_words(user, site):
    session = await begin(user, site, "broken")
    failed = await user.wait_for(session, "failed", seconds=PATIENCE)
    assert "geometry" in failed["message"].lower()
    await eventually(lambda: site.left_of(session) == [], timeout=PATIENCE)


async def test_a_pod_deleted_by_hand_is_replaced(user, site):
    session = await start(user, site)
    first = site.pod(session)["metadata"]
    site.inside(session, "echo kept > $HOME/kept.txt")
    site.kubectl("delete", "pod", first["name"], "--wait=false")

    def replaced():
        status = site.record(session)["status"]
        return status["phase"] == "Running" and status["podUid"] != first["uid"]

    await eventually(replaced, timeout=PATIENCE)
    assert site.inside(session, "cat $HOME/kept.txt") == "kept\n"
    await user.wait_for(session, "running", seconds=PATIENCE)
    async with viewing(user, session) as viewer:
        assert len(viewer.colours) > 1
    await stop(user, session)


async def test_a_pod_deleted_by_hand_fails_the_session_where_policy_is_to_report(
    user, admin, new_site
):
    site = await new_site()
    site.start_agent(settings={"STREAMSPACE_AGENT_ON_DRIFT": "report"})
    await site.until_online(admin)
    session = await start(user, site)
    site.kubectl("delete", "pod", site.pod(session)["metadata"]["name"], "--wait=false")
    failed = await user.wait_for(session, "failed", seconds=_SEEN)
    assert failed["reason"] == "lost"
    assert "outside StreamSpace" in failed["message"]
    await eventually(lambda: site.left_of(session) == [], timeout=PATIENCE)


async def test_a_lost_node_fails_its_sessions_or_has_them_begun_anew_as_policy_says(
    user, admin, new_site, cluster
):
    """Nothing is made up: the kubelet falls silent, and the cluster's controllers notice."""
    reporting, repairing = [await new_site() for _ in range(2)]
    reporting.start_agent(settings={"STREAMSPACE_AGENT_ON_DRIFT": "report"})
    repairing.start_agent(settings={"STREAMSPACE_AGENT_LOST_NODE_PATIENCE": "2"})
    for site in (reporting, repairing):
        await site.until_online(admin)
    reported, repaired = await asyncio.gather(start(user, reporting), start(user, repairing))
    first = repairing.pod(repaired)["metadata"]["uid"]
    repairing.inside(repaired, "echo kept > $HOME/kept.txt")
    lost = f"node {cluster.node} does not answer"
    # While no node at all answers, a cluster blames itself and takes no pod away.
    with FakeNode(repairing), cluster.kubelet_paused():
        failed = await user.wait_for(reported, "failed", seconds=PATIENCE)
        assert failed["reason"] == "lost"
        assert lost in failed["message"]

        def gives_up_the_node():
            status = repairing.record(repaired)["status"]
            uids = {pod["metadata"]["uid"] for pod in repairing.get("pods", repaired)}
            return status["phase"] == "Recovering" and lost in status["message"] and uids - {first}

        # Its place is taken by a pod that finds no node until one is back.
        await eventually(gives_up_the_node, timeout=PATIENCE)
        async with dial(await connect(user, repaired)) as stream:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await stream.recv()
        assert closed.value.rcvd.code == 4502
        assert "being brought back" in closed.value.rcvd.reason

    def runs_again():
        status = repairing.record(repaired)["status"]
        return status["phase"] == "Running" and status["podUid"] != first

    await eventually(runs_again, timeout=2 * PATIENCE)
    await user.wait_for(repaired, "running", seconds=PATIENCE)
    assert repairing.inside(repaired, "cat $HOME/kept.txt") == "kept\n"
    async with viewing(user, repaired) as viewer:
        assert len(viewer.colours) > 1
    await eventually(lambda: reporting.left_of(reported) == [], timeout=PATIENCE)
    await stop(user, repaired)


async def test_a_change_is_seen_that_an_agent_slept_through_and_the_api_server_has_forgotten(
    user, site, cluster
):
    """Its watches are too old then (410 Gone), and it looks at everything anew."""
    session = await start(user, site)
    first = site.pod(session)["metadata"]
    site.may_be_forbidden = True
    agent = site.agents[-1]
    agent.process.send_signal(signal.SIGSTOP)
    try:
        with cluster.apiserver_down():
            pass
        site.kubectl("delete", "pod", first["name"])
    finally:
        agent.process.send_signal(signal.SIGCONT)

    def replaced():
        status = site.record(session)["status"]
        return status["phase"] == "Running" and status["podUid"] != first["uid"]

    await eventually(replaced, timeout=PATIENCE)
    assert "watch begins anew" in agent.log.read_text()
    await user.wait_for(session, "running", seconds=PATIENCE)
    await stop(user, session)


async def test_a_deployment_changed_by_hand_is_put_back(user, site):
    session = await start(user, site)
    [before] = site.get("deployments", session)
    site.kubectl("scale", f"deployment/{session}", "--replicas=0")

    def back():
        [deployment], status = site.get("deployments", session), site.record(session)["status"]
        generation = deployment["metadata"]["generation"]
        # Once for the change, and once for its repair.
        return (
            generation >= before["metadata"]["generation"] + 2
            and deployment["spec"]["replicas"] == 1
            and (status["phase"], status["deploymentGeneration"]) == ("Running", generation)
        )

    await eventually(back, timeout=PATIENCE)
    await user.wait_for(session, "running", seconds=PATIENCE)
    assert site.pod(session)["metadata"]["uid"] == site.record(session)["status"]["podUid"]
    async with viewing(user, session) as viewer:
        assert len(viewer.colours) > 1
    await stop(user, session)


async def test_two_agents_of_one_site_carry_out_each_generation_once(user, admin, new_site):
    site = await new_site()
    agents = [site.start_agent(name) for name in ("one", "two")]
    await site.until_online(admin, agents=2)

    async def live(number):
        """Start; every second one rests and wakes; every third one is stopped in the end."""
        session = await begin(user, site)
        generations = {1: "running"}
        await user.wait_for(session, "running", seconds=2 * PATIENCE)
        if number % 2:
            await act(user, session, "hibernate", "hibernated")
            await act(user, session, "wake", "running")
            generations |= {2: "hibernated", 3: "running"}
        if number % 3 == 0:
            await stop(user, session)
            generations[len(generations) + 1] = "terminated"
        return session, generations

    lives = await asyncio.gather(*map(live, range(6)))
    for session, generations in lives:
        final = generations[max(generations)]
        effects = collections.Counter(
            (event.data["generation"], event.data["toState"])
            for event in await history(user, session, "state", until=final)
            if event.data["toState"] in {"running", "hibernated", "terminated", "failed"}
        )
        assert effects == dict.fromkeys(generations.items(), 1)
        starts = list(generations.values()).count("running")
        assert len(site.pods_ever_placed(session)) == starts
        assert site.record(session)["spec"]["generation"] == max(generations)
        assert bool(site.get("pods", session)) == (final == "running")
    for agent in agents:
        # Both had work to do, or this shows little.
        assert any(session in agent.log.read_text() for session, _ in lives)
    await stop(user, *(s for s, generations in lives if "terminated" not in generations.values()))


async def states(user, session, *, until):
    """Each state that the session was told to have."""
    return [event.data["toState"] for event in await history(user, session, "state", until=until)]


def waits_for_its_image(site, session):
    return any(
        status["state"].get("waiting", {}).get("reason") in {"ErrImagePull", "ImagePullBackOff"}
        for pod in site.get("pods", session)
        for status in pod["status"].get("containerStatuses", ())
    )


@contextlib.contextmanager
def late_image(cluster):
    """An image that comes to the node when it is told to, as another name of the session's."""
    if isinstance(cluster, GivenCluster):
        pytest.skip("an image comes late only to a node of the tests' own")
    try:
        yield lambda: cluster.ctr("images", "tag", "--force", images.SESSION.tag, LATE_IMAGE)
    finally:
        cluster.ctr("images", "rm", LATE_IMAGE)
