"""StreamSpace in a cluster, installed as docs/how-to/install-on-kubernetes.md says.

The overlay is `dev`, with what a test needs on top of it: a catalog served by git inside
the cluster, which a real installation refuses (`http://`, a private address).
"""

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml
from tests.support import images, kubectl, service_images

REPOSITORY = Path(__file__).parents[2]
ROOT = REPOSITORY / "deploy/k8s"
NAMESPACES = ("streamspace", "streamspace-agent", "streamspace-sessions")
CATALOGS = "streamspace-test-catalog"
CLUSTER = "here"
PASSWORD = "correct horse battery staple"
TEMPLATE = "tests_desktop"

_GIT = """
import pathlib
from wsgiref.simple_server import make_server
from dulwich import porcelain
from dulwich.server import DictBackend
from dulwich.web import HTTPGitApplication
lab = pathlib.Path("/tmp/lab")
lab.mkdir()
repository = porcelain.init(lab)
(lab / "desktop.yaml").write_bytes(pathlib.Path("/catalog/desktop.yaml").read_bytes())
porcelain.add(repository, [lab / "desktop.yaml"])
who = b"tests <tests@example.org>"
porcelain.commit(repository, message=b"a desktop", author=who, committer=who)
application = HTTPGitApplication(DictBackend({"/lab": repository}))
make_server("0.0.0.0", 8000, application).serve_forever()
"""


@dataclass
class Deployment:
    """What runs there, and the folder with its secrets."""

    kubeconfig: Path
    installation: Path

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        return kubectl.run(*arguments, kubeconfig=self.kubeconfig, stdin=stdin, timeout=timeout)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def secrets(self, *more: str) -> str:
        """The secrets command's answer, as it is piped into `kubectl apply`."""
        return subprocess.run(
            [
                sys.executable, "-m", "streamspace_embedded.containers", "kubernetes",
                "--installation", str(self.installation), *more,
            ],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    def address(self, service: str) -> str:
        """Where the Service is, whichever pods it has; reached from here where the route exists."""
        spec = self.get(f"service/{service}", "--namespace=streamspace")["spec"]
        return f"{spec['clusterIP']}:{spec['ports'][0]['port']}"

    def restart(self, *workloads: str, namespace: str = "streamspace") -> None:
        """Replace the pods of these, as an upgrade does, and wait until the old ones are gone."""
        self.kubectl("rollout", "restart", f"--namespace={namespace}", *workloads)
        self.wait_until_ready(namespace)
        for each in workloads:
            self._wait_until_alone(namespace, each.rpartition("/")[2])

    def _wait_until_alone(self, namespace: str, name: str) -> None:
        """Until the old pod is gone, and not only counted out."""
        deadline = time.monotonic() + 120
        chosen = f"--selector=app.kubernetes.io/name={name}"
        while len(self.get("pods", f"--namespace={namespace}", chosen)["items"]) > 1:
            assert time.monotonic() < deadline, f"the old pod of {name} does not end"
            time.sleep(0.5)

    def apply(self, folder: Path) -> str:
        return self.kubectl("apply", "--server-side", "--kustomize", str(folder))

    def wait_until_ready(self, namespace: str, seconds: int = 240) -> None:
        """Every Deployment and StatefulSet is rolled out; else says what is in the way."""
        for each in self.get("deployments,statefulsets", f"--namespace={namespace}")["items"]:
            name = f"{each['kind'].lower()}/{each['metadata']['name']}"
            try:
                self.kubectl(
                    "rollout", "status", name, f"--namespace={namespace}", f"--timeout={seconds}s",
                    timeout=seconds + 30,
                )  # fmt: skip
            except kubectl.KubectlError as error:
                raise AssertionError(f"{error}\n{self.last_words(namespace)}") from None

    def last_words(self, namespace: str) -> str:
        told = [self.kubectl("get", "pods", f"--namespace={namespace}", "--output=wide")]
        told.append(
            self.kubectl(
                "get", "events", f"--namespace={namespace}", "--field-selector=type=Warning"
            )
        )
        for pod in self.get("pods", f"--namespace={namespace}")["items"]:
            name = pod["metadata"]["name"]
            with contextlib.suppress(kubectl.KubectlError):
                told.append(self.kubectl("logs", f"--namespace={namespace}", name, "--tail=5"))
        return "\n".join(told)[-6000:]

    @contextlib.contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[int]:
        """A port of this machine that leads to a pod of the service."""
        command = kubectl.kubectl()
        assert command is not None
        process = subprocess.Popen(
            [*command, "port-forward", "--namespace=streamspace", f"service/{service}", f":{port}"],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout is not None
            yield _first_port(process.stdout)
        finally:
            process.terminate()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()

    def recover_admin(self) -> str:
        """A new password of the administrator, as an operator would get one."""
        said = self.kubectl(
            "exec", "--namespace=streamspace", "deployment/auth", "--",
            "python", "-m", "streamspace_auth.recovery",
        )  # fmt: skip
        match = re.search(r"the password (\S+)", said)
        assert match is not None
        return match[1]

    def enrol(self, token: str, port: int) -> None:
        """Make the Secret that the agent of this cluster starts with."""
        answer = httpx2.post(
            f"http://127.0.0.1:{port}/api/v1/clusters",
            json={"id": CLUSTER},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 201, answer.text
        self.kubectl(
            "create", "secret", "generic", "agent-enrolment", "--namespace=streamspace-agent",
            "--from-file=enrolment.json=/dev/stdin", stdin=answer.text,
        )  # fmt: skip


def _first_port(output: Any) -> int:
    deadline = time.monotonic() + 30
    said = ""
    while time.monotonic() < deadline:
        if select.select([output], [], [], 1)[0]:
            line = output.readline()
            said += line
            match = re.search(r"127\.0\.0\.1:(\d+) ->", line)
            if match is not None:
                return int(match[1])
            if not line:
                break
    raise AssertionError(f"no port is forwarded: {said}")


def sign_in(port: int, password: str) -> str:
    answer = httpx2.post(
        f"http://127.0.0.1:{port}/api/v1/auth/login",
        json={"username": "admin", "password": password},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["accessToken"])


def overlay(folder: Path) -> Path:
    """The control plane of `dev`, which may read the catalog below and be reached from outside."""
    folder.mkdir()
    above = os.path.relpath(ROOT, folder)
    policies = [
        _policy(
            "catalog-of-the-tests",
            "catalog-sync",
            egress=[
                {
                    "to": [
                        {
                            "namespaceSelector": {
                                "matchLabels": {"kubernetes.io/metadata.name": CATALOGS}
                            }
                        }
                    ]
                }
            ],
        ),
        # As an ingress controller would come.
        _policy("users-of-the-tests", "gateway", ingress=[{"ports": [{"port": 8080}]}]),
        _policy("viewers-of-the-tests", "vnc-proxy", ingress=[{"ports": [{"port": 8081}]}]),
    ]
    (folder / "network.yaml").write_text(yaml.safe_dump_all(policies))
    told = {
        "kind": "Kustomization",
        "namespace": "streamspace",
        "resources": [f"{above}/overlays/dev/control-plane", "network.yaml"],
        "configMapGenerator": [
            {
                "name": "catalog-sync-settings",
                "behavior": "merge",
                "literals": [
                    "STREAMSPACE_CATALOG_SYNC_PLAIN_HTTP=true",
                    "STREAMSPACE_CATALOG_SYNC_PRIVATE_ADDRESSES=true",
                ],
            }
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(told))
    return folder


def _policy(name: str, service: str, **rules: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"app.kubernetes.io/name": service}}
    kinds = [kind.capitalize() for kind in rules]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "streamspace"},
        "spec": {"podSelector": selector, "policyTypes": kinds, **rules},
    }


def catalog() -> str:
    """A pod that serves a git repository with one template: the tests' own desktop."""
    template = {
        "apiVersion": "stream.space/v1alpha1",
        "kind": "Template",
        "metadata": {"name": "desktop"},
        "spec": {
            "displayName": "Desktop",
            "category": "Tests",
            "baseImage": images.SESSION.tag,
            "defaultResources": {"cpu": "50m", "memory": "256Mi"},
            "connection": {"protocol": "vnc", "port": 5900},
            "ports": [{"name": "vnc", "containerPort": 5900}],
            "volumeMounts": [{"name": "user-home", "mountPath": "/home/session"}],
        },
    }
    metadata = {"name": "catalog", "namespace": CATALOGS, "labels": {"app": "catalog"}}
    kept = {"desktop.yaml": yaml.safe_dump(template), "serve.py": _GIT}
    items = [
        {"kind": "Namespace", "metadata": {"name": CATALOGS}},
        {"kind": "ConfigMap", "metadata": metadata, "data": kept},
        {
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": "catalog"}, "ports": [{"port": 8000}]},
        },
        {
            "kind": "Pod",
            "metadata": metadata,
            "spec": {
                "containers": [
                    {
                        "name": "git",
                        "image": "streamspace/catalog-sync:0.1.0",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python", "/catalog/serve.py"],
                        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
                        "volumeMounts": [{"name": "catalog", "mountPath": "/catalog"}],
                    }
                ],
                "volumes": [{"name": "catalog", "configMap": {"name": "catalog"}}],
                "terminationGracePeriodSeconds": 0,
            },
        },
    ]
    listed = [{"apiVersion": "v1", **each} for each in items]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": listed})


@contextlib.contextmanager
def installed(cluster: Any, folder: Path) -> Iterator[Deployment]:
    """Install all of it, and take all of it away."""
    cluster.load(service_images.archive())
    deployment = Deployment(cluster.kubeconfig, folder / "installation")
    before = definitions(deployment)
    try:
        _install(deployment, folder)
        yield deployment
    finally:
        remove(deployment, kept=before)


def _install(deployment: Deployment, folder: Path) -> None:
    deployment.kubectl("apply", "--server-side", "--filename=-", stdin=catalog())
    deployment.apply(ROOT / "base/namespace")
    deployment.kubectl("apply", "--server-side", "--filename=-", stdin=deployment.secrets())
    deployment.apply(overlay(folder / "overlay"))
    deployment.wait_until_ready("streamspace")
    with deployment.forwarded("gateway", 8080) as port:
        token = sign_in(port, deployment.recover_admin())
        deployment.apply(ROOT / "crds")
        namespaces = ROOT / "agent/namespace.yaml"
        deployment.kubectl("apply", "--server-side", "--filename", str(namespaces))
        deployment.enrol(token, port)
    deployment.apply(ROOT / "overlays/dev/agent")
    deployment.wait_until_ready("streamspace-agent")


def remove(deployment: Deployment, *, kept: set[str] | None = None) -> None:
    """Take it away at once; custom resource definitions in `kept` were there before."""
    names = (*NAMESPACES, CATALOGS)
    deployment.kubectl("delete", "namespace", *names, "--ignore-not-found", "--wait=false")
    for name in names:
        # Nobody is there for whom an orderly end would be of use.
        deployment.kubectl(
            "delete", "pods", "--all", f"--namespace={name}", "--force", "--grace-period=0",
            "--ignore-not-found",
        )  # fmt: skip
    deployment.kubectl(
        "wait", "--for=delete", *(f"namespace/{name}" for name in names), "--timeout=120s"
    )
    for kind in ("clusterrolebinding", "clusterrole"):
        deployment.kubectl("delete", kind, "streamspace-agent", "--ignore-not-found")
    if kept is not None:
        ours = sorted(
            name for name in definitions(deployment) - kept if name.endswith(".stream.space")
        )
        if ours:
            deployment.kubectl("delete", "customresourcedefinition", *ours)


def definitions(deployment: Deployment) -> set[str]:
    found = deployment.get("customresourcedefinitions")["items"]
    return {each["metadata"]["name"] for each in found}
