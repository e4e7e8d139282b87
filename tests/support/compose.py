"""`docker compose`: the machine's own, else built once from its published Go module.

`tests/docker/compose/` pins it and everything it is made of, by version and checksum.
"""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from tests.support import cache, debian

SOURCE = Path(__file__).parents[1] / "docker/compose"
_MODULE = "github.com/docker/compose/v2"


def command() -> list[str]:
    """How to call it.

    Raises:
        debian.UnavailableError: there is none, and none can be built here.
    """
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    return [str(_built())]


def version() -> str:
    found = re.search(rf"{re.escape(_MODULE)} v(\S+)", (SOURCE / "go.mod").read_text())
    assert found
    return found[1]


def _built() -> Path:
    parts = [path.read_bytes() for path in sorted(SOURCE.glob("go.*"))]
    binary = cache.folder() / f"compose-{version()}-{cache.digest(platform.machine(), *parts)}"
    with cache.lock(binary.name):
        if not binary.exists():
            go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
            if go is None:
                raise debian.UnavailableError(
                    "there is neither `docker compose` nor Go to build it with"
                )
            with cache.step(f"docker compose {version()} from its Go module"):
                _build(go, binary)
    return binary


def _build(go: str, binary: Path) -> None:
    half = binary.with_suffix(".half")
    # Nobody waits for this alone: other tests run meanwhile.
    done = subprocess.run(
        [
            "nice", "-n", "19", go, "build", "-trimpath", "-buildvcs=false",
            f"-ldflags=-s -w -X {_MODULE}/internal.Version=v{version()}",
            "-o", half, f"{_MODULE}/cmd",
        ],
        cwd=SOURCE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
    )  # fmt: skip
    if done.returncode != 0:
        words = " | ".join(done.stdout.strip().splitlines()[-5:])
        raise debian.UnavailableError(f"docker compose could not be built: {words}")
    half.rename(binary)
