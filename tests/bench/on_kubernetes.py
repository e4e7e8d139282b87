"""Sessions on a real cluster: what we add to Kubernetes' own time, and what an agent weighs.

The cluster is the one that KUBECONFIG names, else a node of the benchmark's own. Control
plane and agent run beside it; starts are told by the event stream, as to a browser.
"""

import asyncio
import contextlib
import copy
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
from tests.bench.following import Followed, following
from tests.bench.load import Connections, percentile
from tests.bench.report import Figure, milliseconds
from tests.bench.starts import NotStartedError, Run
from tests.kubernetes import sites
from tests.kubernetes.fake_node import FakeNode, copies, watched_creations
from tests.kubernetes.onenode.cluster import Cluster, prepare
from tests.kubernetes.onenode.given import GivenCluster
from tests.support import images
from tests.support.debian import UnavailableError
from tests.support.stack import (
    ADMIN_PASSWORD,
    Stack,
    end,
    launch,
    sign_in,
    wait_until_ready,
)

_PATIENCE = 300.0
"""Seconds for a start among many, on few cores."""


async def measure() -> list[Figure]:
    try:
        with _cluster() as cluster, tempfile.TemporaryDirectory(prefix="streamspace-bench-") as at:
            async with _installed(cluster, Path(at)) as (stack, connections, site):
                return [
                    *await _beside_kubectl(connections, site),
                    *await _burst(connections, site),
                    *await _memory(stack, site),
                ]
    except UnavailableError as error:
        return [Figure("nothing: no cluster can be had here", str(error))]


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    given = os.environ.get("KUBECONFIG")
    if given and (Path(given).parent / "machine.json").exists():
        yield Cluster.found(Path(given).parent)
    elif given:
        yield GivenCluster(Path(given))
    else:
        prepare()
        with Cluster.running([images.archive(images.SESSION)]) as cluster:
            yield cluster


@contextlib.asynccontextmanager
async def _installed(
    cluster: Any, folder: Path
) -> AsyncIterator[tuple[Stack, Connections, sites.Site]]:
    sites.apply_resource_kinds(cluster)
    quiet = {"STREAMSPACE_LOG_LEVEL": "WARNING"}
    stack = launch(folder / "data", sites.CONTROL_PLANE | quiet)
    try:
        await wait_until_ready(stack, 240)
        async with httpx2.AsyncClient(base_url=stack.url, timeout=60, trust_env=False) as client:
            admin = await sign_in(client, "admin", ADMIN_PASSWORD)
            await sites.have_catalog(admin, folder / "catalog")
            site = await sites.open_site(cluster, admin, folder / "site")
            try:
                site.start_agent(settings=quiet)
                await site.until_online(admin)
                connections = Connections(stack.url, admin.token)
                yield stack, connections, site
                await connections.close()
            finally:
                site.close()
    finally:
        end(stack)


async def _start(connections: Connections, followed: Followed, site: sites.Site) -> Run:
    wanted = {
        "template": f"{sites.CATALOG}_desktop",
        "clusterId": site.id,
        "persistentHome": False,
    }
    asked = time.time()
    answer = await connections.request("POST", "/sessions", wanted)
    if answer.status != 202:
        raise NotStartedError(answer.body.decode(errors="replace"))
    session = answer.json()["session"]["id"]
    try:
        return Run(session, asked, await followed.wait(session, "running", _PATIENCE))
    except TimeoutError as error:
        raise NotStartedError(f"{session} does not run") from error


async def _stop(connections: Connections, followed: Followed, *sessions: str) -> None:
    for session in sessions:
        await connections.request("DELETE", f"/sessions/{session}")
    for session in sessions:
        await followed.wait(session, "terminated", _PATIENCE)


async def _beside_kubectl(
    connections: Connections, site: sites.Site, count: int = 20
) -> list[Figure]:
    """Turn by turn, so that both find the machine in the same mood.

    The pod is the same but for its name; it has no probe, so kubectl is content once its
    container runs, and we once its desktop answers. For kubectl speaks that it has not to
    be told, against it that it is started twice: what that takes is measured beside.
    """
    ours, theirs, starting = [], [], []
    manifest: dict[str, Any] = {}
    with watched_creations(site) as created:
        async with following(connections) as followed:
            for number in range(count + 1):
                run = await _start(connections, followed, site)
                [manifest] = site.get("deployments", run.session)
                applied = created[run.session]
                await _stop(connections, followed, run.session)
                by_kubectl = await asyncio.to_thread(_by_kubectl, site, manifest, number)
                began = time.time()
                await asyncio.to_thread(site.kubectl, "version", "--client")
                if number:  # The first ones find caches empty.
                    ours.append(run.ran - applied)
                    theirs.append(by_kubectl)
                    starting.append(2 * (time.time() - began))
    added = percentile(ours, 0.95) - percentile(theirs, 0.95)
    own = percentile(starting, 0.5)
    return [
        Figure("Deployment applied to `running` seen by a client", _spread(ours)),
        Figure("the same pod by `kubectl apply` and `kubectl wait`", _spread(theirs)),
        Figure("what we add, p95", milliseconds(added), "<= 150 ms"),
        Figure("the same, but for kubectl's own two starts", milliseconds(added + own)),
    ]


def _by_kubectl(site: sites.Site, manifest: dict[str, Any], number: int) -> float:
    """Seconds until the pod of a session's Deployment is available, made by hand."""
    name = f"by-hand-{number}"
    by_hand = copy.deepcopy(manifest)
    by_hand.pop("status", None)
    by_hand["metadata"] = {"name": name, "namespace": site.id}
    by_hand["spec"]["selector"]["matchLabels"] = {"app": name}
    by_hand["spec"]["template"]["metadata"] = {"labels": {"app": name}}
    path = site.folder / f"{name}.json"
    path.write_text(json.dumps(by_hand))
    began = time.time()
    site.kubectl("apply", "--filename", str(path))
    site.kubectl("wait", "--for=condition=Available", f"deployment/{name}", "--timeout=60s")
    took = time.time() - began
    site.kubectl("delete", "deployment", name, "--cascade=foreground")
    return took


async def _burst(connections: Connections, site: sites.Site, count: int = 50) -> list[Figure]:
    async with following(connections) as followed:
        gate = time.time()
        outcomes = await asyncio.gather(
            *(_start(connections, followed, site) for _ in range(count)), return_exceptions=True
        )
        runs = [outcome for outcome in outcomes if isinstance(outcome, Run)]
        await _stop(connections, followed, *(run.session for run in runs))
    took = _spread([run.ran - gate for run in runs]) if runs else "none"
    return [
        Figure(
            f"{count} starts at once with small pods, POST to `running`",
            f"{len(runs)} of {count} run, {took}",
            f"all {count} end",
        )
    ]


async def _memory(stack: Stack, site: sites.Site, count: int = 500) -> list[Figure]:
    """The agent beside sessions on a node that is not one: all resources but no processes."""
    site.agents[-1].end()
    idle = await _weight(stack, site, "idle")
    with FakeNode(site) as node:
        await asyncio.to_thread(copies, site, node.name, count)
        full = await _weight(stack, site, "full")
    return [
        Figure(
            f"agent's memory with {count} sessions watched",
            f"{full / 2**20:.0f} MB ({idle / 2**20:.0f} MB with none)",
            "< 150 MB",
        )
    ]


async def _weight(stack: Stack, site: sites.Site, name: str) -> float:
    """The most resident bytes of an agent in its first half minute."""
    # Nobody is to hear of these sessions, or they would be stopped: there are no such users.
    with stack.held("session"):
        agent = site.start_agent(name)
        try:
            most = 0.0
            ends = time.monotonic() + 30
            while time.monotonic() < ends:
                most = max(most, psutil.Process(agent.process.pid).memory_info().rss)
                await asyncio.sleep(0.2)
            assert '"agent ready"' in agent.log.read_text(), agent.last_words()
        finally:
            agent.end()
    return most


def _spread(values: list[float]) -> str:
    middle, late = percentile(values, 0.5), percentile(values, 0.95)
    return f"p50 {milliseconds(middle)}, p95 {milliseconds(late)}"
