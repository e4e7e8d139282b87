"""A node that only says it is there, and sessions on it that are nothing but resources.

So an agent can be given more sessions to watch than one machine can run.
"""

import concurrent.futures
import contextlib
import copy
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Self

import urllib3
from tests.kubernetes.sites import Site

import kubernetes

_HEARTBEAT = 5.0
_AT_ONCE = 8
_GROUP, _VERSION, _PLURAL = "stream.space", "v1alpha1", "sessions"


class FakeNode:
    """Ready for as long as the block runs; no pod on it is ever started."""

    def __init__(self, site: Site) -> None:
        self.name = f"fake-{site.id}"
        self._api = kubernetes.client.CoreV1Api(_client(site))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def __enter__(self) -> Self:
        taint = {"key": "streamspace.test/fake", "effect": "NoSchedule"}
        self._api.create_node({"metadata": {"name": self.name}, "spec": {"taints": [taint]}})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._api.delete_node(self.name)

    def _beat(self) -> None:
        while True:
            ready = {
                "type": "Ready",
                "status": "True",
                "reason": "Fake",
                "message": "It only says so.",
                "lastHeartbeatTime": datetime.now(UTC).isoformat(),
            }
            self._api.patch_node_status(self.name, {"status": {"conditions": [ready]}})
            if self._ended.wait(_HEARTBEAT):
                return


def copies(site: Site, node: str, count: int) -> None:
    """Copy the site's newest session with all its resources, as if it ran on that node."""
    client = _client(site)
    apps, core = kubernetes.client.AppsV1Api(client), kubernetes.client.CoreV1Api(client)
    records = kubernetes.client.CustomObjectsApi(client)
    original = site.get("sessions.stream.space")[-1]

    def make(number: int) -> None:
        name = f"copy-desktop-{number:08}"
        record = records.create_namespaced_custom_object(
            _GROUP, _VERSION, site.id, _PLURAL, _record(original, name)
        )
        owner = {
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "kind": "Session",
            "name": name,
            "uid": record["metadata"]["uid"],
        }
        metadata = {"name": name, "labels": _labels(name), "ownerReferences": [owner]}
        made = apps.create_namespaced_deployment(site.id, _deployment(metadata))
        pod = core.create_namespaced_pod(site.id, _pod(metadata, node))
        core.patch_namespaced_pod_status(name, site.id, {"status": _running()})
        status = {
            "phase": "Running",
            "generation": 1,
            "podName": name,
            "podUid": pod.metadata.uid,
            "podRestarts": 0,
            "nodeName": node,
            "deploymentUid": made.metadata.uid,
            # The controller's own changes of it are no drift.
            "deploymentGeneration": 1000,
        }
        records.patch_namespaced_custom_object_status(
            _GROUP, _VERSION, site.id, _PLURAL, name, {"status": status}
        )

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as workers:
        list(workers.map(make, range(count)))


@contextlib.contextmanager
def watched_creations(site: Site) -> Iterator[dict[str, float]]:
    """When each Deployment of the site was first seen (wall clock, seconds), by its name."""
    seen: dict[str, float] = {}
    watch = kubernetes.watch.Watch()
    apps = kubernetes.client.AppsV1Api(_client(site))

    def follow() -> None:
        ask = apps.list_namespaced_deployment
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            for event in watch.stream(ask, site.id, timeout_seconds=3600):
                seen.setdefault(event["object"].metadata.name, time.time())

    # It notices the end at the next change only, so nobody waits for it.
    threading.Thread(target=follow, daemon=True).start()
    try:
        yield seen
    finally:
        watch.stop()


def _client(site: Site) -> Any:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(
        str(site.cluster.kubeconfig), client_configuration=configuration
    )
    configuration.connection_pool_maxsize = _AT_ONCE
    return kubernetes.client.ApiClient(configuration)


def _labels(session: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/managed-by": "streamspace-agent",
        "app.kubernetes.io/name": "streamspace-session",
        "stream.space/session": session,
    }


def _record(original: dict[str, Any], name: str) -> dict[str, Any]:
    spec = copy.deepcopy(original["spec"]) | {"generation": 1, "state": "running"}
    spec = json.loads(json.dumps(spec).replace(original["metadata"]["name"], name))
    return {
        "apiVersion": original["apiVersion"],
        "kind": original["kind"],
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": spec,
    }


def _deployment(metadata: dict[str, Any]) -> dict[str, Any]:
    """One that makes no pod of its own: a copy's is made by hand."""
    labels = metadata["labels"]
    return {
        "metadata": metadata,
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _containers()},
        },
    }


def _pod(metadata: dict[str, Any], node: str) -> dict[str, Any]:
    tolerations = [{"operator": "Exists"}]
    return {
        "metadata": metadata,
        "spec": {**_containers(), "nodeName": node, "tolerations": tolerations},
    }


def _containers() -> dict[str, Any]:
    return {"containers": [{"name": "session", "image": "streamspace.test/session:1"}]}


def _running() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    conditions = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    return {
        "phase": "Running",
        "podIP": "192.0.2.1",
        "startTime": now,
        "conditions": [{"type": each, "status": "True"} for each in conditions],
        "containerStatuses": [
            {
                "name": "session",
                "image": "streamspace.test/session:1",
                "imageID": "",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
        ],
    }
