"""A real API server takes every object of deploy/k8s, without a warning (a dry run)."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kubernetes.deployment import ROOT, Deployment, remove
from tests.support import kubectl


@pytest.fixture(scope="module")
def deployment(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Nothing but the namespaces: a dry run makes none, and what is in one needs it."""
    found = Deployment(cluster.kubeconfig, tmp_path_factory.mktemp("deploy"))
    try:
        for file in ("base/namespace/namespace.yaml", "agent/namespace.yaml"):
            found.kubectl("apply", "--server-side", "--filename", str(ROOT / file))
        yield found
    finally:
        remove(found)


@pytest.mark.parametrize("overlay", ["dev", "prod/control-plane", "prod/agent"])
def test_the_api_server_takes_everything_without_a_warning(
    overlay: str, deployment: Deployment, tmp_path: Path
) -> None:
    above = os.path.relpath(ROOT, tmp_path)
    told: dict[str, Any] = {"kind": "Kustomization", "resources": [f"{above}/overlays/{overlay}"]}
    if overlay == "prod/control-plane":
        told["components"] = [f"{above}/components/autoscaling"]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(told))
    said = deployment.kubectl(
        "apply", "--server-side", "--dry-run=server", "--force-conflicts", "--warnings-as-errors",
        "--kustomize", str(tmp_path),
    )  # fmt: skip
    rendered = yaml.load_all(kubectl.run("kustomize", str(tmp_path)), yaml.CSafeLoader)
    assert len(said.splitlines()) == len([each for each in rendered if each is not None])
