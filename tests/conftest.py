"""What all tests share: how they are dealt out to workers."""

from typing import Any

import pytest
from tests.support.dealing import FolderScheduling


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FolderScheduling | None:
    if config.getvalue("dist") != "loadgroup":
        return None
    return FolderScheduling(config, log)
