"""Sites: what StreamSpace calls clusters, each a namespace with agents of its own.

The control plane and the agents run outside, as processes of this machine, the way an
agent behind NAT reaches a cluster elsewhere: with a kubeconfig. It holds the token of a
service account that is bound to the Role of deploy/k8s, and to nothing else.
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dulwich import porcelain
from tests.kubernetes import pods
from tests.kubernetes.onenode.given import GivenCluster
from tests.kubernetes.session_images import WEB
from tests.support import images
from tests.support.stack import REPOSITORY, Api

from streamspace_common.testing.waiting import eventually

K8S = REPOSITORY / "deploy/k8s"
ACCOUNT = "agent"
CATALOG = "tests"
POD_GRACE = 2
"""Seconds a session's pod gets to end."""
LEFT_BEHIND = "deployments,replicasets,pods,services,networkpolicies,endpointslices"
"""What a session consists of, besides its record and its user's home."""
MISSING_IMAGE = "localhost:10248/no-such-image:7"
"""Where a kubelet says of its own health, and that it has nothing else."""
LATE_IMAGE = "streamspace.test/late:1"
BROKEN = "no-geometry"

SETTINGS = {
    "STREAMSPACE_AGENT_RUNTIME": "kubernetes",
    "STREAMSPACE_AGENT_POD_GRACE": str(POD_GRACE),
    "STREAMSPACE_AGENT_HOME_SIZE": "16Mi",
    "STREAMSPACE_AGENT_SHM_SIZE": "16Mi",
    # Sessions that ask for half a core and 128 MiB reserve 10m and 64 MiB.
    "STREAMSPACE_AGENT_CPU_REQUEST_SHARE": "0.02",
    "STREAMSPACE_AGENT_MEMORY_REQUEST_SHARE": "0.5",
    # What is offered is said here, so that no right to look at nodes is needed.
    "STREAMSPACE_AGENT_CPU": "1000",
    "STREAMSPACE_AGENT_MEMORY": "1000Gi",
    "STREAMSPACE_AGENT_MAX_SESSIONS": "1000",
    "STREAMSPACE_LOG_LEVEL": "INFO",
}
CONTROL_PLANE = {
    # The launcher's own agent takes no sessions.
    "STREAMSPACE_AGENT_RUNTIME": "null",
    "STREAMSPACE_AGENT_MAX_SESSIONS": "0",
    "STREAMSPACE_SESSION_QUOTA_SESSIONS": "200",
    "STREAMSPACE_SESSION_QUOTA_CPU": "1000",
    "STREAMSPACE_SESSION_QUOTA_MEMORY": "1000Gi",
}


@dataclass
class Agent:
    """An agent's process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """Without a last word."""
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end:\n{self.last_words()}") from None

    def last_words(self) -> str:
        return self.log.read_text()[-4000:]


@dataclass
class Site:
    """One namespace, the rights in it, and its agents."""

    cluster: Any
    id: str
    folder: Path
    agents: list[Agent] = field(default_factory=list)
    may_be_forbidden: bool = False
    """Whether a test took rights away, or restarted the API server, which then knows of none."""

    @property
    def account(self) -> str:
        """As the API server's audit log names it."""
        return f"system:serviceaccount:{self.id}:{ACCOUNT}"

    @property
    def enrolment(self) -> Path:
        return self.folder / "enrolment.json"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def start_agent(self, name: str = "one", settings: Mapping[str, str] | None = None) -> Agent:
        """Start an agent; the same name again takes the place of one that ended."""
        environment = {
            variable: value
            for variable, value in os.environ.items()
            if not variable.startswith(("STREAMSPACE_", "KUBE"))
        }
        environment |= SETTINGS | {
            "STREAMSPACE_AGENT_ENROLMENT_FILE": str(self.enrolment),
            "STREAMSPACE_AGENT_KUBECONFIG": str(self.kubeconfig),
            "STREAMSPACE_AGENT_NAMESPACE": self.id,
            "STREAMSPACE_AGENT_INSTANCE": name,
            "STREAMSPACE_AGENT_STATE_DIR": str(self.folder / name),
        }
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(Path(sys.executable).parent / "streamspace-agent")],
                env=environment | dict(settings or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        agent = Agent(name, process, log)
        self.agents.append(agent)
        return agent

    async def until_online(self, admin: Api, agents: int = 1) -> None:
        """Wait until the control plane has heard of so many agents."""

        seen: Any = None

        async def online() -> bool:
            nonlocal seen
            for agent in self.agents[-agents:]:
                assert agent.process.poll() is None, agent.last_words()
            answer = await admin.get(f"/clusters/{self.id}")
            seen = answer.json()
            # Until somebody has heard of it, it is unknown.
            return answer.status_code == 200 and (
                (seen["presence"], seen["agents"]) == ("online", agents)
            )

        try:
            await eventually(online, timeout=120)
        except AssertionError as error:
            words = "\n".join(agent.last_words() for agent in self.agents)
            raise AssertionError(f"not online: {seen}\n{words}") from error

    def kubectl(self, *arguments: str, timeout: float = 60) -> str:
        said: str = self.cluster.kubectl(f"--namespace={self.id}", *arguments, timeout=timeout)
        return said

    def get(self, kinds: str, session: str | None = None) -> list[dict[str, Any]]:
        """Resources in the namespace; with `session` only those with its label."""
        chosen = [f"--selector=stream.space/session={session}"] if session else []
        found: list[dict[str, Any]] = json.loads(
            self.kubectl("get", kinds, "--output=json", *chosen)
        )["items"]
        return found

    def left_of(self, session: str) -> list[str]:
        """What is there of a session, besides its record and its user's home."""
        items = self.get(LEFT_BEHIND, session)
        return [f"{item['kind']} {item['metadata']['name']}" for item in items]

    def record(self, session: str) -> dict[str, Any]:
        """The session's resource."""
        found: dict[str, Any] = json.loads(
            self.kubectl("get", "sessions.stream.space", session, "--output=json")
        )
        return found

    def pod(self, session: str) -> dict[str, Any]:
        """The session's one pod."""
        [found] = [p for p in self.get("pods", session) if "deletionTimestamp" not in p["metadata"]]
        return found

    def inside(self, session: str, command: str) -> str:
        """Run a command in the session's pod."""
        return self.kubectl(
            "exec", self.pod(session)["metadata"]["name"], "--", "bash", "-c", command
        )

    def pods_ever_placed(self, session: str) -> list[str]:
        """Every pod of a session that a node was found for, those that are gone too."""
        return sorted(
            event["involvedObject"]["name"]
            for event in self.get("events")
            if event["reason"] == "Scheduled"
            and event["involvedObject"]["name"].startswith(f"{session}-")
        )

    def requests(self) -> list[dict[str, Any]]:
        """What the agents asked of the API server, from its audit log; skips where there is none.

        A watch is written down when it ends, so end the agents before.
        """
        mark = f'"username":"{self.account}"'
        lines = self.cluster.audit_log.read_text().splitlines()
        return [json.loads(line) for line in lines if mark in line]

    def close(self) -> None:
        """End the agents, who were forbidden nothing, and remove the namespace."""
        with contextlib.ExitStack() as ends:
            ends.callback(self.cluster.kubectl, "delete", "namespace", self.id, "--wait=false")
            if not self.may_be_forbidden and not isinstance(self.cluster, GivenCluster):
                ends.callback(self._assert_nothing_was_forbidden)
            for agent in self.agents:
                ends.callback(agent.end)

    def _assert_nothing_was_forbidden(self) -> None:
        forbidden = {
            (line["verb"], line["requestURI"].partition("?")[0])
            for line in self.requests()
            if line.get("responseStatus", {}).get("code") == 403
        }
        assert not forbidden, f"the agent's role lacks: {sorted(forbidden)}"


async def open_site(cluster: Any, admin: Api, folder: Path) -> Site:
    """A namespace that is enrolled, with what an agent needs to serve it."""
    name = f"site-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    site = Site(cluster, name, folder)
    cluster.kubectl("create", "namespace", name)
    try:
        metadata = {"name": ACCOUNT, "namespace": name}
        subject = {"kind": "ServiceAccount", **metadata}
        group = "rbac.authorization.k8s.io"
        role = shipped_role() | {"metadata": metadata}
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "subjects": [subject],
            "roleRef": {"apiGroup": group, "kind": "Role", "name": ACCOUNT},
        }
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        pods.apply(cluster, name, account, role, binding)
        token = site.kubectl("create", "token", ACCOUNT, "--duration=24h").strip()
        site.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(cluster.kubeconfig, token)))
        answer = await admin.post("/clusters", json={"id": name})
        assert answer.status_code == 201, answer.text
        site.enrolment.write_text(answer.text)
    except BaseException:
        site.close()
        raise
    return site


def shipped_role() -> dict[str, Any]:
    role: dict[str, Any] = yaml.safe_load((K8S / "agent/role.yaml").read_text())
    return role


def _kubeconfig(admin: Path, token: str) -> dict[str, Any]:
    """The administrator's, with the agent's token in place of their credentials."""
    config: dict[str, Any] = yaml.safe_load(admin.read_text())
    context = next(c for c in config["contexts"] if c["name"] == config["current-context"])
    for user in config["users"]:
        if user["name"] == context["context"]["user"]:
            user["user"] = {"token": token}
    return config


def apply_resource_kinds(cluster: Any) -> None:
    """The kinds of resources that an installation adds to a cluster, once for all its sites."""
    for path in sorted((K8S / "crds").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", path)
            name = yaml.safe_load(path.read_text())["metadata"]["name"]
            cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}")


async def have_catalog(admin: Api, folder: Path) -> None:
    """Publish the tests' templates from a git repository, unless they are there."""
    if (await admin.get(f"/templates/{CATALOG}_desktop")).status_code == 200:
        return
    folder.mkdir()
    repository = porcelain.init(folder)
    templates = {
        "desktop": template("desktop"),
        "missing": template("missing", image=MISSING_IMAGE),
        "late": template("late", image=LATE_IMAGE),
        # Its X server does not take this for a size, and ends with words about it.
        "broken": template("broken", env={"GEOMETRY": BROKEN}),
        "web": web_template(),
    }
    for name, content in templates.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
        porcelain.add(repository, [folder / f"{name}.yaml"])
    who = b"tests <tests@example.org>"
    porcelain.commit(repository, message=b"templates", author=who, committer=who)
    repository.close()
    answer = await admin.post("/catalogs", json={"name": CATALOG, "url": str(folder)})
    assert answer.status_code == 202, answer.text

    async def there() -> bool:
        answers = [await admin.get(f"/templates/{CATALOG}_{name}") for name in templates]
        return all(answer.status_code == 200 for answer in answers)

    await eventually(there, timeout=60, message="the catalog was not synced")


def template(
    name: str, *, image: str = images.SESSION.tag, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A template of the tests' own desktop."""
    variables = {"GEOMETRY": "320x240"} | dict(env or {})
    return {
        "apiVersion": "stream.space/v1alpha1",
        "kind": "Template",
        "metadata": {"name": name},
        "spec": {
            "displayName": name.capitalize(),
            "baseImage": image,
            "defaultResources": {"cpu": "500m", "memory": "128Mi"},
            "connection": {"protocol": "vnc", "port": 5900},
            "ports": [{"name": "vnc", "containerPort": 5900}],
            "env": [{"name": key, "value": value} for key, value in variables.items()],
            "volumeMounts": [{"name": "user-home", "mountPath": "/home/session"}],
        },
    }


def web_template() -> dict[str, Any]:
    """A template of a session with a web client of its own."""
    made = template("web", image=WEB.tag)
    made["spec"] |= {
        "connection": {"protocol": "http", "port": 8000},
        "ports": [{"name": "http", "containerPort": 8000}],
    }
    return made
