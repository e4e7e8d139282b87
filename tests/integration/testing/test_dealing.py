"""A run of tests comes to its end, and says which ones failed, also when a worker does not."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
TESTS = """
import os
import pytest

@pytest.mark.parametrize("number", range(60))
def test_something(number):
    if number in {dying}:
        os._exit(1)
"""


@pytest.mark.parametrize("dying", [(0,), (30,), (59,), (10, 45)])
def test_a_run_ends_whichever_test_ends_its_worker(tmp_path: Path, dying: tuple[int, ...]) -> None:
    for folder in ("e2e", "unit"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / "test_it.py").write_text(TESTS.format(dying=dying))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text((REPOSITORY / "tests" / "conftest.py").read_text())
    asked = ["-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *asked, "--import-mode=importlib"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    failed = 2 * len(dying)
    assert f"{failed} failed, {120 - failed} passed" in done.stdout, done.stdout + done.stderr
    for number in dying:
        assert (
            f"crashed while running 'tests/unit/test_it.py::test_something[{number}]'"
            in done.stdout
        )
