"""One Kubernetes cluster for all tests of this folder, which run on one worker.

The cluster that KUBECONFIG names; without it, a node of the tests' own (`onenode`). A
machine that can do neither skips them with the reason. The first run on a machine builds
Kubernetes and an image, which takes a quarter of an hour; both are kept.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from tests.kubernetes import sites as sites_of
from tests.kubernetes.onenode.cluster import Cluster, prepare
from tests.kubernetes.onenode.given import GivenCluster
from tests.kubernetes.session_images import archives
from tests.kubernetes.sites import Site
from tests.support import debian
from tests.support.stack import (
    ADMIN_PASSWORD,
    Api,
    Stack,
    end,
    launch,
    sign_in,
    wait_until_ready,
)

_PATIENCE = 180
"""Seconds for one test, if it names none itself: pods come and go within."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            own = item.get_closest_marker("timeout")
            seconds = own.args[0] if own and own.args else _PATIENCE
            # The clock is the test's: the first one waits for a build and a cluster.
            item.add_marker(pytest.mark.timeout(seconds, func_only=True), append=False)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster | GivenCluster]:
    given = os.environ.get("KUBECONFIG")
    if given:
        yield _given(Path(given))
        return
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with contextlib.ExitStack() as ends:
        try:
            # Long work tells on the terminal what it is doing.
            with capture.global_and_fixture_disabled():
                prepare()
                started = ends.enter_context(Cluster.running(archives()))
        except debian.UnavailableError as error:
            pytest.skip(f"no Kubernetes cluster: {error}")
        yield started


@pytest.fixture
def namespace(cluster: Cluster | GivenCluster) -> Iterator[str]:
    """A namespace of the test's own; everything in it goes with it."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    # Pods need the account that a controller makes a moment later.
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def control_plane(
    cluster: Cluster | GivenCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """StreamSpace but for its agents, beside the cluster."""
    sites_of.apply_resource_kinds(cluster)
    running = launch(tmp_path_factory.mktemp("control-plane") / "data", sites_of.CONTROL_PLANE)
    try:
        asyncio.run(wait_until_ready(running, 240))
        yield running
    finally:
        end(running)


@pytest_asyncio.fixture
async def admin(control_plane: Stack) -> AsyncIterator[Api]:
    """The administrator, with the tests' templates published."""
    async with httpx2.AsyncClient(
        base_url=control_plane.url, timeout=60, trust_env=False
    ) as client:
        someone = await sign_in(client, "admin", ADMIN_PASSWORD)
        await sites_of.have_catalog(someone, control_plane.data.parent / "catalog")
        yield someone


@pytest.fixture
def new_user(admin: Api) -> Callable[[], Awaitable[Api]]:
    async def make() -> Api:
        username, password = f"user-{secrets.token_hex(4)}", secrets.token_urlsafe(16)
        answer = await admin.post("/users", json={"username": username, "password": password})
        assert answer.status_code == 201, answer.text
        return await sign_in(admin.client, username, password)

    return make


@pytest_asyncio.fixture
async def user(new_user: Callable[[], Awaitable[Api]]) -> Api:
    return await new_user()


@pytest_asyncio.fixture
async def new_site(
    cluster: Cluster | GivenCluster, admin: Api, tmp_path: Path
) -> AsyncIterator[Callable[[], Awaitable[Site]]]:
    """Makes sites without agents; they go with all that is in them."""
    with contextlib.ExitStack() as ends:

        async def make() -> Site:
            folder = tmp_path / f"site-{secrets.token_hex(2)}"
            made = await sites_of.open_site(cluster, admin, folder)
            ends.callback(made.close)
            return made

        yield make


@pytest_asyncio.fixture
async def site(new_site: Callable[[], Awaitable[Site]], admin: Api) -> Site:
    """A site with one agent."""
    made = await new_site()
    made.start_agent()
    await made.until_online(admin)
    return made


def _given(kubeconfig: Path) -> Cluster | GivenCluster:
    # One that `python -m tests.kubernetes.onenode up` left running can be disturbed, too.
    if (kubeconfig.parent / "machine.json").exists():
        return Cluster.found(kubeconfig.parent)
    return GivenCluster(kubeconfig)
