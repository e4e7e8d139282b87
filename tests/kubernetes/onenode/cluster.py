"""A one-node Kubernetes cluster: started, waited for, disturbed on purpose, taken down.

    with Cluster.running(images=[archive(SESSION)]) as cluster:
        ... cluster.kubeconfig, cluster.server ...

All programs run on a machine of namespaces (`machine`). Each start waits for what the
next one needs, and what does not come is told with the last lines of its log.
"""

import concurrent.futures
import contextlib
import json
import signal
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.kubernetes.onenode import binary, components, machine, network
from tests.support import cache, debian, images

PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
}

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class ClusterError(Exception):
    """It did not come up, or did not do as told; with the last words of the one to blame."""


@dataclass
class Cluster:
    machine: machine.Machine
    parts: components.Components
    images: list[str] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def running(cls, archives: Iterable[Path] = ()) -> Iterator[Self]:
        """Bring one up and take it down; it ends with this process in any case."""
        # Short: a socket's path may have 107 characters.
        state = Path(tempfile.mkdtemp(prefix="streamspace-node-"))
        cluster = cls.up(state, archives)
        try:
            yield cluster
        finally:
            cluster.down()

    @classmethod
    def up(cls, state: Path, archives: Iterable[Path] = (), *, detached: bool = False) -> Self:
        """Start one with its state in a new or empty folder.

        Raises:
            debian.UnavailableError: this machine cannot, and why.
            ClusterError: it did not come up.
        """
        made = prepare()
        archives = [_pause_image(made), *archives]
        with cache.step("Kubernetes cluster"):
            host = machine.Machine.start(state, detached=detached)
            try:
                joined = network.join(host)
                cluster = cls(host, components.Components(state, joined, host.cgroup, made.onenode))
                cluster.parts.write()
                cluster._start_all(archives)
                (state / "kubectl").symlink_to(made.onenode)
                cluster._note()
            except BaseException:
                host.end()
                raise
        return cluster

    @classmethod
    def found(cls, state: Path) -> Self:
        """One that another process left running."""
        noted = json.loads((state / "cluster.json").read_text())
        host = machine.Machine.found(state)
        joined = network.Network(network.block(noted["block"]))
        parts = components.Components(state, joined, host.cgroup, Path(noted["program"]))
        return cls(host, parts, noted["images"])

    def down(self) -> None:
        self.machine.end()

    @property
    def kubeconfig(self) -> Path:
        return self.parts.kubeconfig

    @property
    def server(self) -> str:
        return self.parts.server

    @property
    def node(self) -> str:
        return components.NODE

    @property
    def audit_log(self) -> Path:
        """A line of JSON per request of anybody but the cluster's own programs and `admin`."""
        return self.machine.log("audit")

    def load(self, archive: Path) -> list[str]:
        """Import an image archive; pods then use it with `imagePullPolicy: Never`.

        Returns:
            The names that it has in the cluster.
        """
        said = self.ctr("images", "import", archive)
        names = [
            line.split()[1].removesuffix("...done")
            for line in said.splitlines()
            if line.startswith("unpacking ")
        ]
        self.images += names
        return names

    def kubectl(self, *arguments: str | Path, timeout: float = 60) -> str:
        return self.machine.run(
            self.parts.program, "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments,
            timeout=timeout,
        )  # fmt: skip

    def stop_apiserver(self) -> None:
        self.machine.stop("kube-apiserver", signal.SIGKILL)

    def start_apiserver(self) -> None:
        self.machine.spawn("kube-apiserver", *self.parts.apiserver(), environment=_ENVIRONMENT)
        self._wait("kube-apiserver", self._serves, 60)

    @contextlib.contextmanager
    def apiserver_down(self) -> Iterator[None]:
        self.stop_apiserver()
        try:
            yield
        finally:
            self.start_apiserver()

    @contextlib.contextmanager
    def kubelet_paused(self) -> Iterator[None]:
        """Its node seems lost: no status, no probes, no new containers; what runs goes on."""
        self.machine.send("kubelet", signal.SIGSTOP)
        try:
            yield
        finally:
            self.machine.send("kubelet", signal.SIGCONT)

    def get(self, path: str) -> Any:
        """Ask the API server; for what the cluster itself waits for.

        Raises:
            OSError: it does not answer, or not with success.
        """
        trusted = ssl.create_default_context(cafile=str(self.parts.state / "keys" / "ca.crt"))
        headers = {"Authorization": f"Bearer {self.parts.admin_token}"}
        request = urllib.request.Request(self.server + path, headers=headers)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
        )
        with opener.open(request, timeout=5) as answer:
            content = answer.read()
        return json.loads(content) if content.startswith(b"{") else content.decode()

    def _start_all(self, archives: Iterable[Path]) -> None:
        self._spawn("etcd", self.parts.etcd)
        self._spawn("containerd", self.parts.containerd)
        self._spawn("kube-apiserver", self.parts.apiserver)
        self._wait("containerd", self._contained, 30)
        # Unpacking images takes as long as all the rest.
        with concurrent.futures.ThreadPoolExecutor(1) as loader:
            loading = [loader.submit(self.load, archive) for archive in archives]
            self._wait("kube-apiserver", self._serves, 90)
            for name, command in components.starting_order(self.parts):
                self._spawn(name, command)
            self._wait("kubelet", self._node_ready, 90)
            self._wait("kube-controller-manager", self._accounts_made, 60)
            for load in loading:
                load.result()

    def _spawn(self, name: str, command: Callable[[], list[str | Path]]) -> None:
        self.machine.spawn(name, *command(), environment=_ENVIRONMENT)

    def _wait(self, name: str, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, machine.MachineError):
                if condition():
                    return
            if not self.machine.running(name):
                raise ClusterError(f"{name} ended:\n{self.machine.last_words(name)}")
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{name} was not ready within {seconds:g} s:\n{self.machine.last_words(name)}"
                )
            time.sleep(0.1)

    def _contained(self) -> bool:
        return bool(self.ctr("version"))

    def _serves(self) -> bool:
        return bool(self.get("/readyz") == "ok")

    def _node_ready(self) -> bool:
        node = self.get(f"/api/v1/nodes/{components.NODE}")
        ready = any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in node["status"].get("conditions", [])
        )
        return ready and not node["spec"].get("taints")

    def _accounts_made(self) -> bool:
        return bool(self.get("/api/v1/namespaces/default/serviceaccounts/default"))

    def ctr(self, *arguments: str | Path) -> str:
        """Talk to the node's containerd."""
        socket = str(self.parts.containerd_socket)
        return self.machine.run("ctr", "-a", socket, "-n", "k8s.io", *arguments, timeout=300)

    def _note(self) -> None:
        noted = {
            "block": str(self.parts.network.block),
            "program": str(self.parts.program),
            "images": self.images,
        }
        (self.parts.state / "cluster.json").write_text(json.dumps(noted))


def prepare() -> binary.Binaries:
    """Everything that a cluster needs and that outlives it.

    Raises:
        debian.UnavailableError: this machine cannot, and why.
    """
    machine.check()
    debian.install(PACKAGES)
    return binary.binaries()


def _pause_image(made: binary.Binaries) -> Path:
    content = images.File(made.pause.read_bytes(), mode=0o755)
    return images.archive(
        images.Image(
            tag=components.PAUSE, files={"pause": content}, config={"Entrypoint": ["/pause"]}
        )
    )
