#!/usr/bin/env python3
"""Installs what StreamSpace needs on this machine, so that one command is enough.

`make up`, `make agent` and `make test` call it with the system's Python, before anything of ours
is installed: it uses the standard library alone. What is current already is left
alone (each step keeps a stamp of what it was made from), so that a second start
costs a fraction of a second.

Usage: bootstrap.py run | agent | develop | bench [--no-apt]
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
WEB = ROOT / "services" / "web"
STAMPS = VENV / "stamps"
LOG = ROOT / ".cache" / "setup.log"
OLDEST_PYTHON = (3, 11)
NODE = "Node.js 20.19, 22.12 or newer, with npm, is needed to build the web app"

PACKAGES = (
    "libs/common",
    "libs/embedded",
    "libs/cli",
    "services/gateway",
    "services/auth",
    "services/session",
    "services/catalog-sync",
    "services/agent",
    "services/vnc-proxy",
)

# Program, or pattern of a file, that must be there -> Debian package that brings it.
TO_RUN = {
    "Xvnc": "tigervnc-standalone-server",
    "xauth": "xauth",
    "openbox": "openbox",
    "tint2": "tint2",
    "xterm": "xterm",
    "xsetroot": "x11-xserver-utils",
    "hsetroot": "hsetroot",
    "fc-match": "fontconfig",
    "setpriv": "util-linux",
    "/usr/share/fonts/**/DejaVuSansMono.ttf": "fonts-dejavu-core",
}
TO_TEST = {
    **TO_RUN,
    "chromium": "chromium",
    "curl": "curl",
    # Of the Node.js that comes with Playwright.
    "/usr/lib/*/libatomic.so.1": "libatomic1",
}
TO_BENCH = {**TO_TEST, "haproxy": "haproxy"}
# Debian keeps servers where only root's path looks.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class SetupError(Exception):
    """Why set-up cannot go on, and what to do about it."""


@dataclass(frozen=True)
class Step:
    """One thing to install; `made_from` decides whether it is current.

    `check` raises at once where a person has to install something first.
    """

    title: str
    stamp: str
    made_from: Callable[[], str]
    run: Callable[[], None]
    result: Path | None = None
    check: Callable[[], object] = lambda: None

    @property
    def current(self) -> bool:
        path = STAMPS / self.stamp
        present = self.result is None or self.result.exists()
        return present and path.is_file() and path.read_text() == self.made_from()

    def done(self) -> None:
        STAMPS.mkdir(parents=True, exist_ok=True)
        (STAMPS / self.stamp).write_text(self.made_from())


def digest(paths: Iterable[Path]) -> str:
    """One hash over the names and contents of files."""
    total = hashlib.sha256(str(sys.version_info[:2]).encode())
    for path in sorted(paths):
        total.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def call(
    *arguments: str | Path, cwd: Path = ROOT, environment: dict[str, str] | None = None
) -> None:
    """Run a command into the log.

    Raises:
        SetupError: it failed; with its last words.
    """
    LOG.parent.mkdir(exist_ok=True)
    line = " ".join(str(argument) for argument in arguments)
    with LOG.open("ab") as log:
        log.write(f"\n$ {line}\n".encode())
        log.flush()
        begin = log.tell()
        done = subprocess.run(
            [str(argument) for argument in arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    if done.returncode != 0:
        with LOG.open("rb") as log:
            log.seek(begin)
            words = log.read().decode(errors="replace").strip().splitlines()[-15:]
        raise SetupError("\n".join([f"This failed: {line}", *words, f"All of it: {LOG}"]))


def find_python() -> str:
    """A Python that is new enough: the one running this, or another one at hand."""
    if sys.version_info >= OLDEST_PYTHON:
        return sys.executable
    for name in ("python3.11", "python3.12", "python3.13"):
        if found := shutil.which(name):
            return found
    version = ".".join(map(str, sys.version_info[:2]))
    raise SetupError(
        f"Python 3.11 or newer is needed; this is {version}. Debian: apt-get install python3.11"
    )


def make_environment(extra: list[str]) -> None:
    python = VENV / "bin" / "python"
    if not python.exists():
        try:
            call(find_python(), "-m", "venv", VENV)
        except SetupError as error:
            shutil.rmtree(VENV, ignore_errors=True)
            raise SetupError(
                f"{error}\nOn Debian, this helps: apt-get install python3-venv"
            ) from error
    constraints = ROOT / "constraints.txt"
    if not (VENV / "bin" / "uv").exists():
        call(
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-c",
            constraints,
            "uv",
        )
    editable = [
        word
        for path in PACKAGES
        for word in ("-e", f"{path}[testing]" if extra and path == "libs/common" else path)
    ]
    call(
        VENV / "bin" / "uv",
        "pip",
        "install",
        "--python",
        python,
        "-c",
        constraints,
        *editable,
        *extra,
    )


def check_node() -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise SetupError(f"{NODE}. Debian 12's own is older: install it from nodejs.org.")
    version = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not node_serves(version):
        raise SetupError(f"{NODE}; this is {version}. Install a newer one from nodejs.org.")


def node_serves(version: str) -> bool:
    """Whether the web app's build tools run on it; they say which ones they want."""
    major, minor = map(int, version.lstrip("v").split(".")[:2])
    return (20, 19) <= (major, minor) < (21, 0) or (major, minor) >= (22, 12)


def web_sources() -> list[Path]:
    kept = [WEB / name for name in ("package.json", "package-lock.json", "index.html")]
    kept += WEB.glob("*.ts")
    kept += WEB.glob("tsconfig*.json")
    for folder in ("src", "public"):
        kept += [path for path in (WEB / folder).rglob("*") if path.is_file()]
    return [path for path in kept if path.is_file()]


def install_node_packages() -> None:
    call("npm", "ci", "--no-audit", "--no-fund", cwd=WEB)


def build_web() -> None:
    call("npm", "run", "build", cwd=WEB)


def missing_packages(wanted: dict[str, str]) -> list[str]:
    """Debian packages that bring what is not there."""
    missing = {package for name, package in wanted.items() if not is_there(name)}
    if not (VENV / "bin" / "python").exists() and importlib.util.find_spec("ensurepip") is None:
        missing.add("python3-venv")
    return sorted(missing)


def is_there(name: str) -> bool:
    """A program on the path, or a file that matches an absolute pattern."""
    if name.startswith("/"):
        return any(Path("/").glob(name[1:]))
    return shutil.which(name, path=SEARCH_PATH) is not None


def install_debian_packages(wanted: dict[str, str], *, allowed: bool) -> None:
    """With apt-get where we may; else say the one line to run."""
    missing = missing_packages(wanted)
    if not missing:
        return
    prefix = administrator() if allowed else None
    if prefix is None or shutil.which("apt-get") is None:
        raise SetupError(by_hand(missing))
    with progress(f"Debian packages: {' '.join(missing)}"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        # A source that is down need not be one of ours; what is then missing, the next line says.
        with contextlib.suppress(SetupError):
            call(*prefix, "apt-get", "update", "-qq", environment=quiet)
        call(
            *prefix, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing,
            environment=quiet,
        )  # fmt: skip


def by_hand(missing: list[str]) -> str:
    """The one line for somebody who may install packages."""
    root = os.geteuid() == 0
    sudo = "sudo " if not root and shutil.which("sudo") else ""
    who = "" if root or sudo else " as root"
    install = f"{sudo}apt-get install --no-install-recommends {' '.join(missing)}"
    return (
        f"Some programs are missing. Run this once{who}, then try again:\n"
        f"  {sudo}apt-get update && {install}"
    )


def administrator() -> list[str] | None:
    """How to run something as root: directly, by sudo without a password, or not at all."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if (
        sudo
        and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return [sudo, "-n"]
    return None


@contextlib.contextmanager
def progress(title: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"  {title} ...", end="", flush=True)
    try:
        yield
    except BaseException:
        print(" failed", flush=True)
        raise
    print(f" {time.monotonic() - began:.0f} s", flush=True)


def steps(*, develop: bool, web: bool = True) -> list[Step]:
    """What has to be made; `web` with the web app, which an agent alone has no use for."""
    projects = [ROOT / path / "pyproject.toml" for path in PACKAGES]
    python_inputs = [*projects, ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    kind = "develop" if develop else "run"
    extra = ["--group", "dev"] if develop else []
    # Those who develop have all that running needs.
    developed = STAMPS / "python-develop"
    stamp = "python-develop" if develop or developed.exists() else "python-run"
    if stamp == "python-develop":
        extra, kind = ["--group", "dev"], "develop"
    python = [
        Step(
            "Python packages",
            stamp,
            lambda: f"{kind} {digest(python_inputs)}",
            lambda: make_environment(extra),
            VENV / "bin" / "streamspace-embedded",
            check=find_python,
        ),
    ]
    if not web:
        return python
    return [
        *python,
        Step(
            "Web packages",
            "web-packages",
            lambda: digest([WEB / "package-lock.json"]),
            install_node_packages,
            WEB / "node_modules",
            check=check_node,
        ),
        Step(
            "Web app",
            "web-app",
            lambda: digest(web_sources()),
            build_web,
            WEB / "dist" / "index.html",
            check=check_node,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("purpose", choices=["run", "agent", "develop", "bench"])
    parser.add_argument(
        "--no-apt",
        action="store_true",
        default=os.environ.get("STREAMSPACE_NO_APT", "") not in {"", "0"},
        help="never install Debian packages; say what is missing instead (STREAMSPACE_NO_APT=1)",
    )
    arguments = parser.parse_args()
    purpose: str = arguments.purpose
    wanted = {"run": TO_RUN, "agent": TO_RUN, "develop": TO_TEST, "bench": TO_BENCH}[purpose]
    LOG.parent.mkdir(exist_ok=True)
    try:
        # Two terminals must not install at once; the second finds everything done.
        with (LOG.parent / "setup.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            todo = steps(develop=purpose in {"develop", "bench"}, web=purpose != "agent")
            for step in todo:
                if not step.current:
                    step.check()
            install_debian_packages(wanted, allowed=not arguments.no_apt)
            for step in todo:
                if not step.current:
                    with progress(step.title):
                        step.run()
                    step.done()
    except SetupError as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped; run it again to go on.")


if __name__ == "__main__":
    main()
