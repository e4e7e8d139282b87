"""A cluster that somebody else runs: kind, k3d, k3s, or one in a company.

It offers the same as a cluster of our own, but for what would disturb it: those helpers
skip the test. The session image must be there already:

    kind load image-archive "$(python -m tests.kubernetes.onenode image)"
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from tests.kubernetes import session_images
from tests.support import kubectl

import kubernetes


class GivenCluster:
    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.images = session_images.names()
        configuration = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(str(kubeconfig), client_configuration=configuration)
        self.server = str(configuration.host)
        with kubernetes.client.ApiClient(configuration) as client:
            nodes = kubernetes.client.CoreV1Api(client).list_node().items
        self.node = str(nodes[0].metadata.name)

    @property
    def audit_log(self) -> Path:
        _skip("reading the API server's audit log")

    def load(self, archive: Path) -> list[str]:
        _skip("loading another image")

    def kubectl(self, *arguments: str | Path, timeout: float = 60) -> str:
        words = [str(word) for word in arguments]
        return kubectl.run(*words, kubeconfig=self.kubeconfig, timeout=timeout)

    @contextlib.contextmanager
    def apiserver_down(self) -> Iterator[None]:
        _skip("stopping the API server")
        yield

    @contextlib.contextmanager
    def kubelet_paused(self) -> Iterator[None]:
        _skip("pausing the kubelet")
        yield

    def stop_apiserver(self) -> None:
        _skip("stopping the API server")

    def start_apiserver(self) -> None:
        _skip("starting the API server")


def _skip(what: str) -> NoReturn:
    pytest.skip(f"{what} needs a cluster of the tests' own; KUBECONFIG names another")
