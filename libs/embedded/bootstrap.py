#!/usr/bin/env python3
"""Installs what StreamSpace needs on this machine, so that one command is enough.

`make up` and `make test` call it with the system's Python, before anything of ours
is installed: it uses the standard library alone. What is current already is left
alone (each step keeps a stamp of what it was made from), so that a second start
costs a fraction of a second.

Usage: bootstrap.py run | develop [--no-apt]
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
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
OLDEST_NODE = 20

PACKAGES = (
    "libs/common",
    "libs/embedded",
    "services/gateway",
    "services/auth",
    "services/session",
    "services/catalog-sync",
    "services/agent",
    "services/vnc-proxy",
)

# Program that must be there -> Debian package that brings it.
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
}
TO_TEST = {"chromium": "chromium", "haproxy": "haproxy", "curl": "curl"}
FONTS = ("fonts-dejavu-core",)


class SetupError(Exception):
    """Why set-up cannot go on, and what to do about it."""


@dataclass(frozen=True)
class Step:
    """One thing to install; `made_from` decides whether it is current."""

    title: str
    stamp: str
    made_from: Callable[[], str]
    run: Callable[[], None]
    result: Path | None = None

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
        raise SetupError(
            "Node.js 20 or newer with npm is needed to build the web app; "
            "install it from your distribution or nodejs.org."
        )
    version = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        raise SetupError(f"Node.js 20 or newer is needed to build the web app; this is {version}.")


def web_sources() -> list[Path]:
    kept = [WEB / name for name in ("package.json", "package-lock.json", "index.html")]
    kept += WEB.glob("*.ts")
    kept += WEB.glob("tsconfig*.json")
    for folder in ("src", "public"):
        kept += [path for path in (WEB / folder).rglob("*") if path.is_file()]
    return [path for path in kept if path.is_file()]


def install_node_packages() -> None:
    check_node()
    call("npm", "ci", "--no-audit", "--no-fund", cwd=WEB)


def build_web() -> None:
    check_node()
    call("npm", "run", "build", cwd=WEB)


def missing_packages(wanted: dict[str, str]) -> list[str]:
    """Debian packages that bring the programs that are not there."""
    missing = {package for program, package in wanted.items() if shutil.which(program) is None}
    if not any(Path("/usr/share/fonts").rglob("DejaVuSansMono.ttf")):
        missing.update(FONTS)
    return sorted(missing)


def install_debian_packages(wanted: dict[str, str], *, allowed: bool) -> None:
    """With apt-get where we may; else say the one line to run."""
    missing = missing_packages(wanted)
    if not missing:
        return
    prefix = administrator() if allowed else None
    if prefix is None or shutil.which("apt-get") is None:
        raise SetupError(
            "Some programs are missing. Run this once, then try again:\n"
            f"  sudo apt-get install --no-install-recommends {' '.join(missing)}"
        )
    with progress(f"Debian packages: {' '.join(missing)}"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        call(*prefix, "apt-get", "update", "-qq", environment=quiet)
        call(
            *prefix, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing,
            environment=quiet,
        )  # fmt: skip


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


def steps(*, develop: bool) -> list[Step]:
    projects = [ROOT / path / "pyproject.toml" for path in PACKAGES]
    python_inputs = [*projects, ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    kind = "develop" if develop else "run"
    extra = ["--group", "dev"] if develop else []
    # Those who develop have all that running needs.
    developed = STAMPS / "python-develop"
    stamp = "python-develop" if develop or developed.exists() else "python-run"
    if stamp == "python-develop":
        extra, kind = ["--group", "dev"], "develop"
    return [
        Step(
            "Python packages",
            stamp,
            lambda: f"{kind} {digest(python_inputs)}",
            lambda: make_environment(extra),
            VENV / "bin" / "streamspace-embedded",
        ),
        Step(
            "Web packages",
            "web-packages",
            lambda: digest([WEB / "package-lock.json"]),
            install_node_packages,
            WEB / "node_modules",
        ),
        Step(
            "Web app",
            "web-app",
            lambda: digest(web_sources()),
            build_web,
            WEB / "dist" / "index.html",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("purpose", choices=["run", "develop"])
    parser.add_argument(
        "--no-apt",
        action="store_true",
        default=os.environ.get("STREAMSPACE_NO_APT", "") not in {"", "0"},
        help="never install Debian packages; say what is missing instead (STREAMSPACE_NO_APT=1)",
    )
    arguments = parser.parse_args()
    develop = arguments.purpose == "develop"
    LOG.parent.mkdir(exist_ok=True)
    try:
        # Two terminals must not install at once; the second finds everything done.
        with (LOG.parent / "setup.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            wanted = {**TO_RUN, **TO_TEST} if develop else TO_RUN
            install_debian_packages(wanted, allowed=not arguments.no_apt)
            for step in steps(develop=develop):
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
