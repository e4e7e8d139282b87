"""Another user than root may run a program in a folder that only root reaches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamspace_embedded.accounts import Account, unprivileged

ASK = "import os, sys; print(os.geteuid(), os.access(sys.argv[1], os.X_OK))"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """A program in a folder like `/root`: nobody but its owner looks into it."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    program = folder / "program"
    program.touch(mode=0o755)
    return program


def asked_by(account: Account, path: Path) -> str:
    command = account.command([sys.executable, "-I", "-S", "-c", ASK, str(path)])
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout


def test_it_may_run_what_only_root_can_reach(hidden: Path) -> None:
    account = unprivileged(hidden.parent / "data", hidden)
    assert account.capability is not None
    assert asked_by(account, hidden) == f"{account.uid} True\n"


def test_it_gets_no_capability_that_it_does_not_need() -> None:
    account = unprivileged(Path("/usr/share/data"), Path("/usr/bin"))
    assert account.uid != 0
    assert account.capability is None
