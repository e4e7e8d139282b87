"""Sessions on Kubernetes from the API to the pixels, with no rights but the shipped Role's.

Control plane and agents are outside of the cluster; streams come by port-forward, unless
a test says otherwise.
"""

import asyncio
import collections
import time

import pytest
import websockets
from tests.kubernetes import pods
from tests.kubernetes.onenode.given import GivenCluster
from tests.kubernetes.sites import POD_GRACE
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

from streamspace_common.testing.waiting import eventually

pytestmark = pytest.mark.timeout(600)
PHASES = ["scheduled", "created", "started", "ready"]


async def test_a_start_leads_to_pixels_over_the_relay(user, site):
    session = await start(user, site)
    events = await history(user, session, "phase", "state", until="running")
    states = [event.data["toState"] for event in events if event.name == "state"]
    reached = [event.data["timing"]["phase"] for event in events if event.name == "phase"]
    assert states == ["starting", "running"]
    assert [phase for phase in reached if phase in PHASES] == PHASES
    async with viewing(user, session) as viewer:
        assert viewer.size == (320, 240)
        assert len(viewer.colours) > 1
    await stop(user, session)


async def test_a_stop_leaves_nothing_but_the_record_and_the_home(user, site, record_property):
    session = await start(user, site)
    [home] = site.get("persistentvolumeclaims")
    assert site.left_of(session)

    asked = time.monotonic()
    assert (await user.delete(session)).status_code == 202
    await user.wait_for(session, "terminated", seconds=PATIENCE)
    record_property("seconds until terminated", time.monotonic() - asked)
    # It is not called ended before its pod is gone; a second is for the garbage collector.
    await eventually(lambda: site.left_of(session) == [], timeout=POD_GRACE + 1)

    record = site.record(session)
    assert record["spec"]["state"] == "terminated"
    assert record["status"]["phase"] == "Terminated"
    assert record["status"]["terminatedAt"]
    [kept] = site.get("persistentvolumeclaims")
    assert kept["metadata"]["uid"] == home["metadata"]["uid"]
    assert "deletionTimestamp" not in kept["metadata"]


async def test_a_stop_takes_the_home_too_when_asked(user, site):
    session = await start(user, site)
    assert site.get("persistentvolumeclaims")
    answer = await user.request("DELETE", f"/sessions/{session}", params={"deleteHome": "true"})
    assert answer.status_code == 202
    await user.wait_for(session, "terminated", seconds=PATIENCE)
    await eventually(lambda: site.get("persistentvolumeclaims") == [], timeout=60)
    assert site.left_of(session) == []
    assert site.record(session)["status"]["phase"] == "Terminated"


async def test_hibernate_and_wake_keep_a_file_in_the_home(user, site):
    session = await start(user, site)
    first = site.pod(session)["metadata"]["uid"]
    site.inside(session, "echo kept > $HOME/kept.txt")

    await act(user, session, "hibernate", "hibernated")
    assert site.get("pods", session) == []
    [deployment] = site.get("deployments", session)
    assert deployment["spec"]["replicas"] == 0
    refused = await user.post(f"/sessions/{session}/connect", json={"role": "control"})
    assert (refused.status_code, refused.json()["code"]) == (409, "wrong-state")

    await act(user, session, "wake", "running")
    assert site.pod(session)["metadata"]["uid"] != first
    assert site.inside(session, "cat $HOME/kept.txt") == "kept\n"
    async with viewing(user, session) as viewer:
        assert len(viewer.colours) > 1
    await stop(user, session)


async def test_five_users_at_once_each_see_only_their_own(new_user, site):
    users = [await new_user() for _ in range(5)]
    sessions = await asyncio.gather(*(start(user, site) for user in users))
    homes = {claim["metadata"]["name"] for claim in site.get("persistentvolumeclaims")}
    assert len(homes) == 5
    await asyncio.gather(*map(colours, users, sessions))  # The desktops have painted.
    painted = [f"{number:02}1234" for number in range(5)]
    for session, colour in zip(sessions, painted, strict=True):
        site.inside(session, f"DISPLAY=:0 xsetroot -solid '#{colour}'")
    seen = await asyncio.gather(*map(colours, users, sessions))
    assert [each & set(painted) for each in seen] == [{colour} for colour in painted]

    for user, session in zip(users, sessions, strict=True):
        items = (await user.get("/sessions")).json()["items"]
        assert [item["id"] for item in items] == [session]
    stranger, foreign = users[0], sessions[1]
    for method, path in [("GET", ""), ("DELETE", ""), ("POST", "/connect"), ("GET", "/events")]:
        answer = await stranger.request(method, f"/sessions/{foreign}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    ticket = await connect(stranger, sessions[0])
    ticket["url"] = ticket["url"].replace(sessions[0], foreign)
    async with dial(ticket) as stream:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await stream.recv()
    assert closed.value.rcvd.code in {4401, 4404}
    await asyncio.gather(*map(stop, users, sessions))


async def colours(user, session):
    """What there is to see, as red, green and blue."""
    async with viewing(user, session) as viewer:
        return {pixel[2::-1].hex() for pixel in viewer.colours}


async def test_three_sites_share_fifteen_starts_evenly(user, admin, new_site):
    sites = [await new_site() for _ in range(3)]
    for site in sites:
        site.start_agent()
    for site in sites:
        await site.until_online(admin)
    ours = {site.id for site in sites}

    async def others_are_away():
        clusters = (await admin.get("/clusters")).json()["items"]
        away = [c for c in clusters if c["id"] not in ours and c["runtime"] == "kubernetes"]
        return all(cluster["presence"] == "offline" for cluster in away)

    await eventually(others_are_away, timeout=60)
    sessions = await asyncio.gather(*(begin(user, None) for _ in range(15)))
    running = [await user.wait_for(each, "running", seconds=2 * PATIENCE) for each in sessions]
    placed = collections.Counter(session["clusterId"] for session in running)
    assert placed == dict.fromkeys(ours, 5)
    for site in sites:
        here = {s["id"] for s in running if s["clusterId"] == site.id}
        assert {p["metadata"]["labels"]["stream.space/session"] for p in site.get("pods")} == here
    await stop(user, *sessions)


async def test_a_stream_goes_straight_to_the_pod_where_the_agent_reaches_it(
    user, admin, cluster, new_site
):
    if isinstance(cluster, GivenCluster):
        pytest.skip("pods of a cluster that KUBECONFIG names may not be reachable from here")
    site = await new_site()
    # Sessions listen to agents' pods only; this agent is a process of this machine.
    pods.apply(cluster, site.id, _let_in(pods.address_towards(cluster.server)))
    site.start_agent(settings={"STREAMSPACE_AGENT_TUNNEL": "pod"})
    await site.until_online(admin)
    session = await start(user, site)
    async with viewing(user, session) as viewer:
        assert len(viewer.colours) > 1
    await stop(user, session)
    forwarded = [r for r in site.requests() if "/portforward?" in r["requestURI"]]
    assert forwarded == []


def _let_in(address):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "agent-outside"},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": f"{address}/32"}}]}],
        },
    }
