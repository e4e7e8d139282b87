"""Programs that a test needs, and the mirror they come from, as this machine has them set up."""

import fcntl
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_SYSTEM_PATHS = ("/usr/sbin", "/sbin")


class UnavailableError(Exception):
    """This machine cannot do it; the message says why. The test is skipped."""


@dataclass(frozen=True)
class Mirror:
    """Where packages come from: a suite's name, its address, and who signs it."""

    name: str
    address: str
    keyring: str | None = None


def find(program: str) -> str | None:
    """The path of a program, also of those that only root has in its path."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_PATHS])
    return shutil.which(program, path=path)


def install(wanted: Mapping[str, str]) -> None:
    """Have programs (or files, by their path), each given with the package that brings it.

    Raises:
        UnavailableError: one is missing and cannot be installed by us.
    """
    missing = _missing(wanted)
    if not missing:
        return
    words = (
        f"not installed: {', '.join(missing)};"
        f" this helps: apt-get install --no-install-recommends {' '.join(missing)}"
    )
    if os.environ.get("STREAMSPACE_NO_APT", "") not in {"", "0"}:
        raise UnavailableError(f"{words} (STREAMSPACE_NO_APT is set)")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UnavailableError(words)
    # Tests that run side by side must not install at once.
    with (Path(tempfile.gettempdir()) / "streamspace-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = _missing(wanted)
        if not missing:
            return
        for command in (
            ["update", "-qq"],
            ["install", "-qq", "-y", "--no-install-recommends", *missing],
        ):
            done = subprocess.run(
                ["apt-get", "-o", "DPkg::Lock::Timeout=300", *command],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                last = " | ".join(done.stderr.strip().splitlines()[-3:])
                raise UnavailableError(f"{words}; apt-get {command[0]} failed: {last}")


def mirror() -> Mirror:
    """The mirror of Debian that this machine itself is installed from.

    Raises:
        UnavailableError: this is no Debian, or its packages have no mirror.
    """
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except FileNotFoundError as error:
        raise UnavailableError("this machine is not a Debian") from error
    facts = {
        name: "".join(shlex.split(value)) for name, _, value in (x.partition("=") for x in lines)
    }
    suite = facts.get("VERSION_CODENAME", "")
    if facts.get("ID") != "debian" or not suite or shutil.which("apt-get") is None:
        raise UnavailableError("this machine is not a Debian")
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI) $(SIGNED_BY)",
         "Created-By: Packages", f"Codename: {suite}", "Component: main"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in asked.stdout.splitlines():
        _, _, address, *signed = line.split(" ")
        if urlsplit(address).scheme in {"http", "https"}:
            keyring = next((word for word in signed if Path(word).is_file()), None)
            return Mirror(suite, address, keyring)
    raise UnavailableError(f"no mirror of {suite} is set up on this machine")


def _missing(wanted: Mapping[str, str]) -> list[str]:
    return sorted(
        {
            package
            for program, package in wanted.items()
            if not (Path(program).exists() if "/" in program else find(program))
        }
    )
