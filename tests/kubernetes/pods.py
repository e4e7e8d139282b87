"""Pods of the session image, as small as they can be, and what tests do with them."""

import json
import socket
import tempfile
from urllib.parse import urlsplit

from tests.support import images


def apply(cluster, namespace, *objects):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"apiVersion": "v1", "kind": "List", "items": list(objects)}, file)
        file.flush()
        cluster.kubectl("apply", f"--namespace={namespace}", "-f", file.name)


def session_pod(name, **spec):
    container = {
        "name": "session",
        "image": images.SESSION.tag,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 5900}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "readinessProbe": {
            "exec": {"command": ["xsetroot", "-display", ":0", "-name", "probed"]},
            "periodSeconds": 1,
        },
        **spec.pop("container", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 2, **spec},
    }


def wait_until_ready(cluster, namespace, pod):
    cluster.kubectl(
        "wait", "--for=condition=Ready", f"pod/{pod}", f"--namespace={namespace}", "--timeout=60s",
        timeout=90,
    )  # fmt: skip


def inside(cluster, namespace, pod, command):
    return cluster.kubectl("exec", f"--namespace={namespace}", pod, "--", "bash", "-c", command)


def address_towards(server):
    """This machine's own address on its way to the cluster, at which pods find it."""
    there = urlsplit(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((there.hostname, there.port))
        return way.getsockname()[0]
