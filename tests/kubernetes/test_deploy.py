"""The overlay `dev` of deploy/k8s on a real cluster: it runs, and streams a desktop."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import websockets
from tests.kubernetes import deployment as deploying
from tests.kubernetes.deployment import CATALOGS, CLUSTER, TEMPLATE, Deployment
from tests.support.debian import UnavailableError
from tests.support.rfb import RfbClient
from tests.support.stack import Api
from tests.support.stack import sign_in as sign_in_to

from streamspace_common.testing.waiting import eventually

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def deployment(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    try:
        with deploying.installed(cluster, tmp_path_factory.mktemp("deploy")) as running:
            yield running
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def ports(deployment: Deployment) -> Iterator[dict[str, int]]:
    """The API and the relay, at ports of this machine; each test's, since tests replace pods."""
    with (
        deployment.forwarded("gateway", 8080) as gateway,
        deployment.forwarded("vnc-proxy", 8081) as relay,
    ):
        yield {"gateway": gateway, "relay": relay}


@pytest.fixture(scope="module")
def password(deployment: Deployment) -> str:
    return deployment.recover_admin()


@pytest_asyncio.fixture
async def admin(ports: dict[str, int], password: str) -> AsyncIterator[Api]:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{ports['gateway']}") as client:
        user = await sign_in_to(client, "admin", password)
        await have_catalog(user)
        yield user


async def have_catalog(user: Api) -> None:
    if (await user.get(f"/templates/{TEMPLATE}")).status_code != 200:
        url = f"http://catalog.{CATALOGS}.svc:8000/lab"
        answer = await user.post("/catalogs", json={"name": "tests", "url": url})
        assert answer.status_code in {202, 409}, answer.text

        async def there() -> bool:
            return (await user.get(f"/templates/{TEMPLATE}")).status_code == 200

        await eventually(there, timeout=60)


def test_secrets_are_applied_again_without_a_change(deployment: Deployment) -> None:
    versions = versions_of_secrets(deployment)
    deployment.kubectl("apply", "--server-side", "--filename=-", stdin=deployment.secrets())
    assert versions_of_secrets(deployment) == versions


def versions_of_secrets(deployment: Deployment) -> dict[str, str]:
    return {
        each["metadata"]["name"]: each["metadata"]["resourceVersion"]
        for each in deployment.get("secrets", "--namespace=streamspace")["items"]
    }


def test_nothing_ran_out_of_memory(deployment: Deployment) -> None:
    for namespace in ("streamspace", "streamspace-agent"):
        for pod in deployment.get("pods", f"--namespace={namespace}")["items"]:
            for status in pod["status"].get("containerStatuses", ()):
                ended = status["lastState"].get("terminated", {})
                assert ended.get("reason") != "OOMKilled", pod["metadata"]["name"]


# ---- Running ---------------------------------------------------------------------------------------------


async def test_the_cluster_is_online_with_the_kubernetes_runtime(admin: Api) -> None:
    async def online() -> bool:
        answer = await admin.get(f"/clusters/{CLUSTER}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["presence"] == "online", answer.text
        assert answer.json()["runtime"] == "kubernetes"
        return True

    await eventually(online, timeout=60)


@pytest.mark.parametrize("template", [TEMPLATE, "starter_desktop"])
async def test_a_desktop_runs_streams_and_goes(
    admin: Api, deployment: Deployment, ports: dict[str, int], template: str
) -> None:
    async with desktop(admin, template) as session_id:
        pods = pods_of(deployment, session_id)
        assert len(pods) == 1
        assert await banner(admin, session_id, ports["relay"]) == b"RFB 003.008\n"
        answer = await admin.delete(session_id)
        assert answer.status_code == 202
        ended = await admin.wait_for(session_id, "terminated", seconds=60)
        assert ended["terminatedAt"]
    assert pods_of(deployment, session_id) == []


@contextlib.asynccontextmanager
async def desktop(user: Api, template: str = TEMPLATE) -> AsyncIterator[str]:
    """A running desktop, deleted at the end."""
    session = await user.launch(template, persistentHome=False)
    try:
        await user.wait_for(session["id"], "running", seconds=90)
        yield session["id"]
    finally:
        await user.delete(session["id"])
        with contextlib.suppress(AssertionError):
            await user.wait_for(session["id"], "terminated", seconds=60)


def pods_of(deployment: Deployment, session_id: str) -> list[str]:
    pods = deployment.get("pods", "--namespace=streamspace-sessions")["items"]
    return [
        pod["metadata"]["name"] for pod in pods if pod["metadata"]["name"].startswith(session_id)
    ]


async def banner(user: Api, session_id: str, port: int) -> bytes:
    """The first words of the desktop, through relay and agent."""
    answer = await user.post(f"/sessions/{session_id}/connect", json={"role": "control"})
    assert answer.status_code == 200, answer.text
    ticket = answer.json()
    url = f"ws://127.0.0.1:{port}/streams/{session_id}"
    async with (
        asyncio.timeout(30),
        websockets.connect(url, subprotocols=ticket["protocols"], compression=None) as socket,
    ):
        data = b""
        while len(data) < 12:
            data += await socket.recv()  # type: ignore[operator]
        return data


async def test_relays_hand_dial_backs_over_to_each_other(
    admin: Api, deployment: Deployment, ports: dict[str, int]
) -> None:
    """The viewer is at one replica; the agent's connection lands on either."""
    async with desktop(admin) as session_id:
        deployment.kubectl(
            "scale", "--namespace=streamspace", "deployment/vnc-proxy", "--replicas=2"
        )
        try:
            await asyncio.to_thread(deployment.wait_until_ready, "streamspace")
            for _ in range(8):
                assert await banner(admin, session_id, ports["relay"]) == b"RFB 003.008\n"
            handed = await asyncio.to_thread(
                deployment.kubectl,
                "logs", "--namespace=streamspace", "--selector=app.kubernetes.io/name=vnc-proxy",
                "--tail=-1",
            )  # fmt: skip
            assert "peer unreachable" not in handed
        finally:
            deployment.kubectl(
                "scale", "--namespace=streamspace", "deployment/vnc-proxy", "--replicas=1"
            )


async def test_the_agent_in_the_cluster_is_forbidden_nothing_and_dials_pods_by_itself(
    admin: Api, deployment: Deployment, cluster: Any, ports: dict[str, int]
) -> None:
    audit_log = cluster.audit_log  # Skips where there is none.
    async with desktop(admin) as session_id:
        assert await banner(admin, session_id, ports["relay"]) == b"RFB 003.008\n"
    mark = '"username":"system:serviceaccount:streamspace-agent:agent"'
    asked = [json.loads(line) for line in audit_log.read_text().splitlines() if mark in line]
    forbidden = {line["requestURI"] for line in asked if line["responseStatus"]["code"] == 403}
    assert forbidden == set()
    used = {
        (line["verb"], line["objectRef"]["resource"], line["objectRef"].get("subresource"))
        for line in asked
        if "objectRef" in line
    }
    # The one right beyond its sessions' namespace; and none that only a way around would need.
    assert ("list", "nodes", None) in used
    assert not any(subresource == "portforward" for _, _, subresource in used)


# ---- Apart -----------------------------------------------------------------------------------------------

_TRY = """
import socket, sys
for word in sys.argv[1:]:
    host, _, port = word.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        print(word)
    except OSError:
        pass
"""
_TRY_IN_A_SESSION = """
for word in "$@"; do
  timeout 3 bash -c "exec 3<>/dev/tcp/${word%:*}/${word##*:}" 2>/dev/null && echo "$word"
done
true
"""
NATS, POSTGRES = "nats.streamspace.svc:4222", "postgres.streamspace.svc:5432"
MONITORING, RELAY = "nats-0.nats-servers.streamspace.svc:8222", "vnc-proxy.streamspace.svc:8081"
API = "gateway.streamspace.svc:8080"


def reached(deployment: Deployment, namespace: str, pod: str, *places: str) -> set[str]:
    """Which of the places a pod can open connections to."""
    script = ["python", "-c", _TRY]
    if namespace == "streamspace-sessions":
        script = ["bash", "-c", _TRY_IN_A_SESSION, "try"]
    said = deployment.kubectl("exec", f"--namespace={namespace}", pod, "--", *script, *places)
    return set(said.split())


@pytest.fixture(scope="module")
def enforced(deployment: Deployment) -> None:
    """That the network of this cluster enforces policies at all."""
    if reached(deployment, "streamspace", "deployment/gateway", POSTGRES):
        pytest.skip("this cluster's network does not enforce NetworkPolicies")


@pytest.mark.parametrize(
    ("who", "where"),
    [
        ("gateway", {NATS}),
        ("auth", {NATS, POSTGRES}),
        ("session", {NATS, POSTGRES}),
        ("catalog-sync", {NATS, POSTGRES}),
        ("vnc-proxy", {NATS, RELAY}),
    ],
)
def test_each_service_reaches_what_it_needs_and_nothing_else(
    deployment: Deployment, enforced: None, who: str, where: set[str]
) -> None:
    every = (NATS, POSTGRES, MONITORING, RELAY)
    assert reached(deployment, "streamspace", f"deployment/{who}", *every) == where


def test_the_agent_reaches_bus_and_relay(deployment: Deployment, enforced: None) -> None:
    every = (NATS, POSTGRES, MONITORING, RELAY)
    found = reached(deployment, "streamspace-agent", "deployment/agent", *every)
    assert found == {NATS, RELAY}


async def test_a_session_reaches_neither_the_control_plane_nor_another_session(
    admin: Api, deployment: Deployment, enforced: None
) -> None:
    async with desktop(admin) as one, desktop(admin) as other:
        pods = deployment.get("pods", "--namespace=streamspace-sessions")["items"]
        addresses = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}
        (mine,) = (name for name in addresses if name.startswith(one))
        (theirs,) = (name for name in addresses if name.startswith(other))
        own = f"{addresses[mine]}:5900"
        places = (NATS, POSTGRES, RELAY, API, f"{addresses[theirs]}:5900", own)
        found = await asyncio.to_thread(reached, deployment, "streamspace-sessions", mine, *places)
        assert found == {own}


# ---- Updated ---------------------------------------------------------------------------------------------


def test_an_update_of_the_gateway_refuses_no_request(deployment: Deployment) -> None:
    url = f"http://{deployment.address('gateway')}/api/v1/auth/jwks"
    try:
        assert ask_once(url).status_code == 200
    except httpx2.HTTPError:
        pytest.skip("this cluster's Services cannot be reached from here")
    stop, answers, failures = threading.Event(), [], []

    def ask() -> None:
        while not stop.wait(0.02):
            try:
                answers.append(ask_once(url).status_code)
            except httpx2.HTTPError as error:
                failures.append(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        deployment.restart("deployment/gateway")
    finally:
        stop.set()
        asking.join()
    assert failures == []
    assert set(answers) == {200}


def ask_once(url: str) -> httpx2.Response:
    """By a connection of its own, since what is asked is where new ones go; by no proxy."""
    with httpx2.Client(trust_env=False, timeout=10) as client:
        return client.get(url)


class Watching:
    """Somebody who looks at a desktop all the time, and comes again by the rules of our viewer."""

    def __init__(self, user: Api, session_id: str, relay: str) -> None:
        self.user, self.session_id, self.relay = user, session_id, relay
        self.pictures = 0
        self.closings: list[int] = []
        self.gaps: list[float] = []
        """Seconds from each loss of the stream to the next picture."""

    async def look(self) -> None:
        lost: float | None = None
        while True:
            if lost is not None:
                await asyncio.sleep(_FIRST_PAUSE)
            try:
                answer = await self.user.post(
                    f"/sessions/{self.session_id}/connect", json={"role": "control"}
                )
                assert answer.status_code == 200, answer.text
                async with websockets.connect(
                    f"ws://{self.relay}/streams/{self.session_id}",
                    subprotocols=answer.json()["protocols"],
                    compression=None,
                    max_size=None,
                    proxy=None,
                ) as socket:
                    screen = RfbClient(socket, patience=60)
                    await screen.connect()
                    while True:
                        await screen.ask()
                        await screen.update()
                        self.pictures += 1
                        if lost is not None:
                            self.gaps.append(time.monotonic() - lost)
                            lost = None
                        await asyncio.sleep(0.05)
            except websockets.ConnectionClosed as closed:
                self.closings.append(closed.rcvd.code if closed.rcvd else 1006)
                lost = lost or time.monotonic()
            except OSError:
                lost = lost or time.monotonic()


_FIRST_PAUSE = 0.25
"""Seconds before our viewer tries again; see services/web/src/viewer/reconnect.ts."""
_STOPS = {4401, 4403, 4404, 4409, 4410}
"""What makes our viewer give up."""


@contextlib.asynccontextmanager
async def watched(deployment: Deployment, password: str) -> AsyncIterator[Watching]:
    """Somebody who sees a desktop, which is the same and runs in the end."""
    url = f"http://{deployment.address('gateway')}"
    async with httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        try:
            user = await sign_in_to(client, "admin", password)
        except httpx2.TransportError:
            pytest.skip("this cluster's Services cannot be reached from here")
        await have_catalog(user)
        async with desktop(user) as session_id:
            viewer = Watching(user, session_id, deployment.address("vnc-proxy"))
            looking = asyncio.create_task(viewer.look())
            try:
                await until_seen_again(viewer, looking)
                before = pod_facts(deployment, session_id)
                yield viewer
                await until_seen_again(viewer, looking)
                assert pod_facts(deployment, session_id) == before
                assert (await user.session(session_id))["state"] == "running"
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)


def pod_facts(deployment: Deployment, session_id: str) -> list[str]:
    """Which pod it is, and how often its desktop was started."""
    return [
        f"{pod['metadata']['uid']} {status['restartCount']} {status['containerID']}"
        for pod in deployment.get("pods", "--namespace=streamspace-sessions")["items"]
        if pod["metadata"]["name"].startswith(session_id)
        for status in pod["status"]["containerStatuses"]
    ]


async def until_seen_again(viewer: Watching, looking: asyncio.Task[None]) -> None:
    seen = viewer.pictures

    def sees() -> bool:
        if looking.done():
            looking.result()
        return viewer.pictures >= seen + 3

    await eventually(sees, timeout=90)


async def test_a_stream_goes_on_while_the_control_plane_is_replaced(
    deployment: Deployment, password: str
) -> None:
    async with watched(deployment, password) as viewer:
        replaced = ("gateway", "auth", "session", "catalog-sync")
        await asyncio.to_thread(deployment.restart, *(f"deployment/{each}" for each in replaced))
        seen = viewer.pictures
        await eventually(lambda: viewer.pictures > seen, timeout=60)
        # One connection from beginning to end.
        assert viewer.closings == []


async def test_a_viewer_is_back_by_itself_after_relay_and_agent_are_replaced(
    deployment: Deployment, password: str, record_property: Callable[[str, object], None]
) -> None:
    async with watched(deployment, password) as viewer:
        for namespace, name in (("streamspace", "vnc-proxy"), ("streamspace-agent", "agent")):
            lost = len(viewer.closings)
            await asyncio.to_thread(deployment.restart, f"deployment/{name}", namespace=namespace)
            # Their pods carried the stream, and are gone.
            await eventually(lambda lost=lost: len(viewer.closings) > lost, timeout=60)
            seen = viewer.pictures
            await eventually(lambda seen=seen: viewer.pictures > seen, timeout=60)
        assert not _STOPS & set(viewer.closings)
        record_property("seconds without a picture", [round(gap, 2) for gap in viewer.gaps])
        record_property("closed with", viewer.closings)


def test_what_is_metered_says_whose_it_is(deployment: Deployment) -> None:
    """The annotations lead a Prometheus to metrics that are there."""
    for pod in deployment.get("pods", "--namespace=streamspace")["items"]:
        annotations = pod["metadata"].get("annotations", {})
        leaving = "deletionTimestamp" in pod["metadata"]
        if annotations.get("prometheus.io/scrape") == "true" and not leaving:
            port = annotations["prometheus.io/port"]
            path = annotations["prometheus.io/path"]
            said = deployment.kubectl(
                "get", "--raw",
                f"/api/v1/namespaces/streamspace/pods/{pod['metadata']['name']}:{port}/proxy{path}",
            )  # fmt: skip
            assert "# TYPE " in said
            assert json.dumps(pod["metadata"]["labels"]["app.kubernetes.io/name"])[1:-1] in said
