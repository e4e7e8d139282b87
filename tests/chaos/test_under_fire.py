"""A short run under fire, each time: two fixed seeds, and one that nobody has chosen.

It is the same program as `make chaos`, as a process of its own: it mounts, kills and
fills disks, and none of that may reach what else is tested here.
"""

import os
import signal
import subprocess
import sys

import pytest
from tests.support.stack import REPOSITORY

_LONGEST = 400


@pytest.mark.timeout(_LONGEST + 60)
def test_nothing_is_lost_doubled_or_stuck_whatever_is_broken(tmp_path):
    trial = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", "--short"],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        told, _ = trial.communicate(timeout=_LONGEST)
    except subprocess.TimeoutExpired:
        trial.send_signal(signal.SIGINT)
        told, _ = trial.communicate(timeout=60)
        pytest.fail(f"it did not end:\n{told}")
    print(told)
    assert trial.returncode == 0, told
