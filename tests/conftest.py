"""What all tests share: how they are dealt out to workers.

Tests of a folder that brings up one big thing (all services, a Kubernetes cluster, a
container engine) run on one worker, so that there is one of it. The mark `xdist_group`
would say so, but pytest-xdist 3.8 passes it on in a way that pytest 9.2 no longer knows,
and says nothing.
"""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/chaos/", "tests/docker/", "tests/e2e/", "tests/kubernetes/")


class FolderScheduling(LoadScopeScheduling):  # type: ignore[misc]  # its package has no types
    """Every test by itself, but for those of a folder that must stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FolderScheduling | None:
    if config.getvalue("dist") != "loadgroup":
        return None
    return FolderScheduling(config, log)
