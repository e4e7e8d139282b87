"""The kubernetes runtime on a real cluster, with the rights of the Role that is shipped."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from tests.kubernetes import pods, sites
from tests.support import images
from tests.support.installation import Installation, MakeSpec
from tests.support.installation import make_spec as make_any_spec

from streamspace_agent.ports import Runtime
from streamspace_agent.runtimes.kubernetes.options import (
    Access,
    KubernetesOptions,
    OnDrift,
    PodOptions,
    Tunnel,
)
from streamspace_agent.runtimes.kubernetes.runtime import KubernetesRuntime
from streamspace_common.contracts.catalog import ResourceAmounts, VolumeMount
from streamspace_common.contracts.clusters import Capacity
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import SessionSpec

pytest.register_assert_rewrite("tests.support.runtime_behaviour")

ACCOUNT = "agent"
CAPACITY = Capacity(max_sessions=10, cpu=2, memory=2**32)


@dataclass
class Place:
    """A namespace, and an agent's rights in it."""

    cluster: Any
    namespace: str
    kubeconfig: Path

    def options(self, **changes: Any) -> KubernetesOptions:
        access = Access(kubeconfig=changes.pop("kubeconfig", self.kubeconfig), patience=60)
        pods_changes = changes.pop("pods", {})
        whole: dict[str, Any] = {
            "access": access,
            "pods": PodOptions(
                namespace=self.namespace,
                grace=1,
                home_size="16Mi",
                shm_size="16Mi",
                **pods_changes,
            ),
            "capacity": CAPACITY,
            "fixed_capacity": True,
            "tunnel": Tunnel.AUTO,
            "on_drift": OnDrift.REPAIR,
            "pull_patience": 3.0,
        }
        return KubernetesOptions(**(whole | changes))

    def kubectl(self, *arguments: str, timeout: float = 60) -> str:
        said: str = self.cluster.kubectl(
            f"--namespace={self.namespace}", *arguments, timeout=timeout
        )
        return said

    def names(self, kinds: str, *arguments: str) -> list[str]:
        return self.kubectl("get", kinds, "--output=name", *arguments).split()

    def pod_of(self, session: SessionId) -> str:
        (name,) = self.kubectl(
            "get", "pods", f"--selector=stream.space/session={session}",
            "--field-selector=status.phase=Running",
            "--output=jsonpath={.items[*].metadata.name}",
        ).split()  # fmt: skip
        return name

    def inside(self, session: SessionId, command: str) -> str:
        return self.kubectl("exec", self.pod_of(session), "--", "bash", "-c", command)

    def record(self, session: SessionId) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(
            self.kubectl("get", "sessions.stream.space", session, "--output=yaml")
        )
        return found

    def remains(self) -> list[str]:
        """What a session that does not run leaves nothing of."""
        kinds = "pods,replicasets,deployments,services,networkpolicies"
        found = self.names(kinds, "--selector=stream.space/session")
        states = "{range .items[*]}{.metadata.name} {.spec.state}{'\\n'}{end}"
        lines = self.kubectl("get", "sessions.stream.space", f"--output=jsonpath={states}")
        resting = {line.split()[0] for line in lines.splitlines() if "hibernated" in line}
        # Of one that rests the empty Deployment stays, and what is around it.
        return [
            each
            for each in found
            if each.startswith("pod/") or not any(session in each for session in resting)
        ]

    async def crash(self, session: SessionId) -> None:
        """End every program of the desktop, as a crash of its X server does."""
        # Killed with them, or before an answer: how the call itself ends says nothing.
        with contextlib.suppress(Exception):
            self.inside(session, "kill -9 -1")


@pytest.fixture
def place(cluster: Any, namespace: str, tmp_path: Path) -> Iterator[Place]:
    sites.apply_resource_kinds(cluster)
    metadata = {"name": ACCOUNT, "namespace": namespace}
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "subjects": [{"kind": "ServiceAccount", **metadata}],
        "roleRef": {"apiGroup": group, "kind": "Role", "name": ACCOUNT},
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    role = sites.shipped_role() | {"metadata": metadata}
    pods.apply(cluster, namespace, account, role, binding)
    token = cluster.kubectl("create", "token", ACCOUNT, f"--namespace={namespace}").strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    context = next(c for c in config["contexts"] if c["name"] == config["current-context"])
    for user in config["users"]:
        if user["name"] == context["context"]["user"]:
            user["user"] = {"token": token}
    path = tmp_path / "agent.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    yield Place(cluster, namespace, path)


@pytest.fixture
def make_spec(cluster: Any) -> MakeSpec:
    """Specs of the tests' desktop, as small as it can be."""

    def make(*arguments: Any, **changes: Any) -> SessionSpec:
        made = make_any_spec(*arguments, **({"image": images.SESSION.tag} | changes))
        home = VolumeMount(name="user-home", mount_path="/home/session")
        template = made.template_manifest.spec.model_copy(update={"volume_mounts": (home,)})
        manifest = made.template_manifest.model_copy(update={"spec": template})
        resources = ResourceAmounts(cpu="40m", memory="128Mi")
        return made.model_copy(update={"template_manifest": manifest, "resources": resources})

    return make


MakeRuntime = Callable[..., Any]


@pytest_asyncio.fixture
async def make_runtime(place: Place) -> AsyncIterator[MakeRuntime]:
    """Opens runtimes of one namespace: agents of one cluster."""
    opened: list[KubernetesRuntime] = []

    async def make(**changes: Any) -> KubernetesRuntime:
        runtime = KubernetesRuntime(place.options(**changes))
        opened.append(runtime)
        await runtime.open()
        return runtime

    yield make
    for runtime in opened:
        await runtime.close(stop_sessions=False)


@pytest_asyncio.fixture
async def installation(place: Place) -> AsyncIterator[Installation]:
    """For the behaviour suite."""

    def make() -> Runtime:
        return KubernetesRuntime(place.options())

    async def kill(_runtime: Runtime, session: SessionId) -> None:
        await place.crash(session)

    made = Installation(make, kill, place.remains, make())
    await made.begin()
    try:
        yield made
    finally:
        # What it started goes with the namespace.
        await made.close()
