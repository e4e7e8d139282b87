"""A cluster of the tests' own leaves nothing on the machine, however it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.kubernetes.onenode import machine
from tests.kubernetes.onenode.cluster import Cluster
from tests.kubernetes.pods import apply, session_pod, wait_until_ready
from tests.support import debian

REPOSITORY = Path(__file__).parents[2]
STARTER = """
import time
from tests.kubernetes.onenode.cluster import Cluster
with Cluster.running() as cluster:
    print(cluster.parts.state, flush=True)
    time.sleep(600)
"""


class Traces:
    """Where a cluster shows on this machine, each as lines that name it."""

    def __init__(self, host: machine.Machine) -> None:
        self.cgroup, self.state, self.link = host.cgroup, str(host.state), host.link
        self.network = Path(f"/proc/{host.pid}/ns/net").stat().st_ino

    def found(self) -> dict[str, list[str]]:
        lines = {
            "links": command("ip", "-oneline", "link"),
            "routes": command("ip", "route", "show", "table", "all"),
            "mounts": Path("/proc/self/mounts").read_text().splitlines(),
            "cgroups": command("find", "/sys/fs/cgroup", "-type", "d", "-name", self.cgroup),
            "folders": [str(path) for path in Path(self.state).parent.iterdir()],
            "notes": [str(path) for path in machine.notes().iterdir()],
            "processes": list(self._processes()),
        }
        own = (self.cgroup, self.state, self.link)
        return {
            kind: [line for line in each if any(word in line for word in own)]
            for kind, each in lines.items()
        }

    def _processes(self):
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                own = Path(f"/proc/{process.pid}")
                line = " ".join([*process.cmdline(), (own / "cgroup").read_text()])
                # Whoever lives in its network is of it, whatever it is called.
                if (own / "ns" / "net").stat().st_ino == self.network:
                    line += f" in {self.cgroup}"
                yield line


KINDS = ("links", "routes", "mounts", "cgroups", "folders", "notes", "processes")
NOTHING: dict[str, list[str]] = {kind: [] for kind in KINDS}


def command(*words: str) -> list[str]:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def rules() -> set[str]:
    """Chains that Kubernetes' programs and the network plugins make in the packet filter."""
    names = ("KUBE-", "CNI-", "TEST-")
    return {
        line for line in command("iptables-save") if line.startswith(tuple(f":{n}" for n in names))
    }


@pytest.fixture
def own_clusters():
    if os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names a cluster; this test starts one of the tests' own")
    try:
        machine.check()
    except debian.UnavailableError as error:
        pytest.skip(f"no Kubernetes cluster: {error}")


def test_nothing_is_left_of_a_cluster_that_is_taken_down(own_clusters):
    with Cluster.running() as short_lived:
        traces = Traces(short_lived.machine)
        pod = session_pod("waiting", container={"image": short_lived.images[0]})
        del pod["spec"]["containers"][0]["readinessProbe"]
        apply(short_lived, "default", pod)
        wait_until_ready(short_lived, "default", "waiting")
        during = traces.found()
        assert any("/pause" in line for line in during["processes"])
        for kind in ("links", "routes", "cgroups", "folders", "notes"):
            assert during[kind], kind
        # Its mounts and rules never were anywhere but in namespaces of its own.
        assert during["mounts"] == []
        assert rules() == set()
        assert "KUBE-SERVICES" in short_lived.machine.run("iptables-save")
        assert traces.state in short_lived.machine.run("cat", "/proc/self/mounts")
    assert traces.found() == NOTHING


def test_nothing_is_left_of_a_cluster_whose_starter_was_killed(own_clusters):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout
    with starter, starter.stdout:
        state = Path(starter.stdout.readline().strip())
        traces = Traces(machine.Machine.found(state))
        starter.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while traces.found()["processes"] and time.monotonic() < deadline:
        time.sleep(0.1)
    # Its folder is all that can be left; whoever starts a cluster next removes it.
    machine.remove_remains()
    assert traces.found() == NOTHING
