"""What a session can reach: neither the control plane's database, nor another session.

The database is the real one, at an address of this machine that pods reach. Where the
cluster's network does not enforce policies, the objects are checked and the test says so.
"""

import asyncio
import contextlib
import ipaddress
import json

import pytest
from tests.kubernetes import pods
from tests.kubernetes.viewing import start, stop

pytestmark = pytest.mark.timeout(600)

_ASKS_FOR_TLS = r"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""How a client begins to talk to PostgreSQL, which answers `S` or `N`."""


async def test_a_session_reaches_neither_the_database_nor_another_session(
    new_user, site, cluster, control_plane
):
    users = [await new_user() for _ in range(2)]
    sessions = await asyncio.gather(*(start(user, site) for user in users))
    for session in sessions:
        [policy] = site.get("networkpolicies", session)
        check_objects(policy["spec"], session)

    pods.apply(cluster, site.id, pods.session_pod("plain"))
    await asyncio.to_thread(pods.wait_until_ready, cluster, site.id, "plain")
    addresses = [site.pod(session)["status"]["podIP"] for session in sessions]
    here = pods.address_towards(cluster.server)
    port = json.loads((control_plane.data / "ports.json").read_text())["postgres"]
    first = site.pod(sessions[0])["metadata"]["name"]
    async with open_to_pods(here, port) as (host, opened):
        # Nothing but the policies stands between a pod and the database.
        database = await says(site, "plain", host, opened, _ASKS_FOR_TLS) in {"S", "N"}
        enforced = await says(site, "plain", addresses[1], 5900) == ""
        if enforced:
            assert await says(site, first, host, opened, _ASKS_FOR_TLS) == ""
            assert await says(site, first, addresses[1], 5900) == ""
            # A desktop does answer: the one in its own pod.
            assert await says(site, first, "127.0.0.1", 5900) == "R"
    await asyncio.gather(*map(stop, users, sessions))
    if not enforced:
        pytest.skip("the policies are right, but this cluster's network does not enforce any")
    if not database:
        pytest.skip("sessions are shut off; but no pod of this cluster reaches this machine")


def check_objects(policy, session):
    assert policy["podSelector"] == {"matchLabels": {"stream.space/session": session}}
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    [ingress] = policy["ingress"]
    [source] = ingress["from"]
    assert source["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "agent"}}
    assert list(source["namespaceSelector"]["matchLabels"]) == ["kubernetes.io/metadata.name"]
    names, internet = policy["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    for destination in internet["to"]:
        block = ipaddress.ip_network(destination["ipBlock"]["cidr"])
        denied = [ipaddress.ip_network(each) for each in destination["ipBlock"]["except"]]
        private = ["10.96.0.1/32", "192.168.1.1/32"] if block.version == 4 else ["fd00::1/128"]
        for each in map(ipaddress.ip_network, private):
            assert any(each.subnet_of(network) for network in denied)


@contextlib.asynccontextmanager
async def open_to_pods(address, port):
    """Let what listens on this machine's loopback be reached by pods, as a real database is."""
    carrying = set()

    async def carry(reader, writer):
        carrying.add(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer), contextlib.closing(back):
            back.write(await reader.read(100))
            writer.write(await there.read(100))
            await writer.drain()

    server = await asyncio.start_server(carry, address, 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)


async def says(site, pod, host, port, words=""):
    """The first byte that a server says to a pod; nothing where it cannot be reached."""
    dialogue = f"exec 3<>/dev/tcp/{host}/{port} && printf '{words}' >&3 && head -c1 <&3"
    command = f'timeout 10 bash -c "{dialogue}" 2>/dev/null || true'
    return await asyncio.to_thread(pods.inside, site.cluster, site.id, pod, command)
