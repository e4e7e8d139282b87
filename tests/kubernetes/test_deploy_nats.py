"""The three NATS servers of deploy/k8s find each other by name and TLS, and survive a loss."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from tests.kubernetes.deployment import ROOT, Deployment, remove
from tests.support import service_images
from tests.support.debian import UnavailableError

from streamspace_common.bus import Bus, BusError, provision
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.contracts.streams import EVENTS, STREAMS
from streamspace_common.testing.waiting import eventually
from streamspace_embedded import trust
from streamspace_embedded.layout import Layout

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def deployment(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("nats")
    try:
        cluster.load(service_images.archive())
    except UnavailableError as error:
        pytest.skip(str(error))
    found = Deployment(cluster.kubeconfig, folder / "installation")
    try:
        found.apply(ROOT / "base/namespace")
        found.kubectl("apply", "--server-side", "--filename=-", stdin=found.secrets())
        found.apply(overlay(folder / "overlay"))
        found.wait_until_ready("streamspace")
        yield found
    finally:
        remove(found)


def overlay(folder: Path) -> Path:
    """As shipped, but all three may stand on one node and take little of it."""
    folder.mkdir()
    above = os.path.relpath(ROOT, folder)
    apart = "/spec/template/spec/affinity"
    told = {
        "kind": "Kustomization",
        "resources": [f"{above}/nats/cluster"],
        "components": [f"{above}/components/small"],
        "patches": [
            {
                "target": {"kind": "StatefulSet"},
                "patch": yaml.safe_dump([{"op": "remove", "path": apart}]),
            }
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(told))
    return folder


@pytest_asyncio.fixture
async def bus(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Bus]:
    """As the session service, through a port that leads to one of the servers."""
    secrets = Layout(deployment.installation).secrets
    credentials = tmp_path / "session.creds"
    known = trust.load(Layout(deployment.installation))
    from streamspace_common.bus.credentials import service_credentials

    credentials.write_text(service_credentials(known.trust.services, "session"))
    with deployment.forwarded("nats", 4222) as port:
        connected = await Bus.connect(
            f"tls://localhost:{port}",
            name="session",
            credentials=credentials,
            ca_file=secrets / "ca.crt",
            inbox=SERVICES["session"].inbox,
        )
        try:
            yield connected
        finally:
            await connected.close()


async def test_every_stream_has_a_copy_on_each_server(bus: Bus) -> None:
    async def provisioned() -> bool:
        try:
            await provision(bus, num_replicas=3)
        except BusError:
            return False
        return True

    await eventually(provisioned, timeout=60)
    for stream in STREAMS:
        info = await bus.link.api(f"STREAM.INFO.{stream.name}")
        servers = {
            info["cluster"]["leader"],
            *(each["name"] for each in info["cluster"]["replicas"]),
        }
        assert servers == {"nats-0", "nats-1", "nats-2"}


async def test_what_was_published_outlives_a_server(deployment: Deployment, bus: Bus) -> None:
    await test_every_stream_has_a_copy_on_each_server(bus)
    stored = await bus.publish("evt.core.session.one.created", b"{}", {"Nats-Msg-Id": "one"})
    leader = (await bus.link.api(f"STREAM.INFO.{EVENTS.name}"))["cluster"]["leader"]
    deployment.kubectl(
        "delete", "pod", leader, "--namespace=streamspace", "--force", "--grace-period=0"
    )
    deployment.wait_until_ready("streamspace")

    async def is_whole() -> bool:
        try:
            info = await bus.link.api(f"STREAM.INFO.{EVENTS.name}")
        except BusError:
            # This test's port may have led to the very server that went.
            return not bus.connected
        copies = info["cluster"]["replicas"]
        assert info["state"]["last_seq"] == stored.sequence
        return all(each["current"] for each in copies) and len(copies) == 2

    await eventually(is_whole, timeout=60)
