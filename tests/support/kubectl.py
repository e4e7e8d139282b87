"""kubectl: the machine's own, or the one in the test cluster's program once that is built."""

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support import cache


class KubectlError(Exception):
    """It refused; with its own words."""


@functools.cache
def kubectl() -> tuple[str, ...] | None:
    """How to call it; None where there is none."""
    found = shutil.which("kubectl")
    if found is not None:
        return (found,)
    built = sorted(
        cache.folder().glob("kubernetes-*/onenode"), key=lambda path: path.stat().st_mtime
    )
    return (str(built[-1]), "kubectl") if built else None


def run(
    *arguments: str,
    kubeconfig: Path | None = None,
    stdin: str | None = None,
    timeout: float = 120,
) -> str:
    """Run it and return what it printed.

    Raises:
        KubectlError: it failed, or there is none.
    """
    command: Sequence[str] | None = kubectl()
    if command is None:
        raise KubectlError("kubectl is not installed")
    environment = dict(os.environ)
    if kubeconfig is not None:
        environment["KUBECONFIG"] = str(kubeconfig)
    done = subprocess.run(
        [*command, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=environment,
    )
    if done.returncode != 0:
        raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
