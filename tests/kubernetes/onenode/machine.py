"""A machine of its own inside this one, made of namespaces.

Kubernetes' programs use fixed names and ports and change a machine for good: chains of
packet filter rules, interfaces, mounts, control groups, kernel settings. In namespaces
of their own (processes, mounts, network, names) all of that is theirs alone, any number
of clusters run beside each other, and it is gone with the last process. `init.py` is
the first process; this is what the outside sees of it.
"""

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.kubernetes.onenode import init
from tests.support import cache, debian

_NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts")


class MachineError(Exception):
    """Something on it did not work; with its last words."""


def check() -> None:
    """Raises `debian.UnavailableError` with the reason where no machine can be made."""
    if os.geteuid() != 0:
        raise debian.UnavailableError("a cluster of its own needs root")
    probe = [*unshare(), "mount", "--make-rshared", "/"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise debian.UnavailableError(f"no namespaces of its own: {done.stderr.strip()}")
    hierarchies = init.hierarchies()
    if not hierarchies or not all(os.access(path, os.W_OK) for path in hierarchies):
        raise debian.UnavailableError("no control groups that it may write to")
    controllers = hierarchies[0] / "cgroup.controllers"
    if len(hierarchies) == 1 and controllers.exists():
        lacking = {"cpu", "cpuset", "memory", "pids"} - set(controllers.read_text().split())
        if lacking:
            raise debian.UnavailableError(f"no control groups for {', '.join(sorted(lacking))}")


def unshare() -> list[str]:
    return ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc", "--"]


@dataclass
class Machine:
    """State, logs and control socket are in `state`; `cgroup` is the name of its groups."""

    state: Path
    cgroup: str
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @classmethod
    def start(cls, state: Path, *, detached: bool = False) -> Self:
        """Make one. It ends with this process, unless `detached`.

        Raises:
            MachineError: it did not start.
        """
        remove_remains()
        machine = cls(state, f"streamspace-{secrets.token_hex(4)}")
        (state / "logs").mkdir(parents=True)
        with cache.lock("machines"):
            # Noted before anything is made: whoever comes later can clean up.
            note = notes() / f"{machine.cgroup}.json"
            note.write_text(json.dumps({"state": str(state)}))
            (state / "machine.json").write_text(json.dumps({"cgroup": machine.cgroup}))
            machine._start(detached=detached)
        return machine

    def _start(self, *, detached: bool) -> None:
        command = [*unshare(), sys.executable, "-I", init.__file__, str(self.state), self.cgroup]
        with self.log("init").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *(["--detached"] if detached else [])],
                stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while self.gone():
            if self.process.poll() is not None or time.monotonic() > deadline:
                words = self.last_words("init")
                self.end()
                raise MachineError(f"The machine did not start:\n{words}")
            time.sleep(0.01)

    @classmethod
    def found(cls, state: Path) -> Self:
        """One that another process started."""
        return cls(state, json.loads((state / "machine.json").read_text())["cgroup"])

    @property
    def link(self) -> str:
        """The interface out here by which it is connected with this machine, if it is."""
        return _link(self.cgroup)

    def log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def last_words(self, name: str, lines: int = 15) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])
        return "(it has no log)"

    def gone(self) -> bool:
        """Whether nobody is there; a first process that is merely slow is there."""
        try:
            with self._connected():
                return False
        except (ConnectionRefusedError, FileNotFoundError):
            return True

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._connected() as connection, connection.makefile("rw") as stream:
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            reply = dict(json.loads(stream.readline()))
        if "error" in reply:
            raise MachineError(f"{request.get('name')}: {reply['error']}")
        return reply

    def spawn(self, name: str, *argv: str | Path, environment: Mapping[str, str] = {}) -> None:
        """Start a program; its output goes to `log(name)`."""
        words = [str(word) for word in argv]
        self.ask({"do": "start", "name": name, "argv": words, "environment": dict(environment)})

    def running(self, name: str) -> bool:
        return bool(self.ask({"do": "state"}).get(name, {}).get("running"))

    def send(self, name: str, number: signal.Signals) -> None:
        self.ask({"do": "signal", "name": name, "signal": int(number)})

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a program and wait until it is gone."""
        deadline = time.monotonic() + 15
        self.send(name, number)
        while self.running(name):
            if time.monotonic() > deadline:
                self.send(name, signal.SIGKILL)
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The first process's, as it is called out here."""
        with self._connected() as connection:
            size = struct.calcsize("3i")
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            pid: int = struct.unpack("3i", credentials)[0]
            return pid

    def run(self, *argv: str | Path, timeout: float = 60) -> str:
        """Run a command to its end in there.

        Raises:
            MachineError: it failed; with what it said.
        """
        inside = ["nsenter", "--target", str(self.pid), *_NAMESPACES, "--"]
        done = subprocess.run(
            [*inside, *map(str, argv)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )
        if done.returncode != 0:
            line = " ".join(map(str, argv))
            raise MachineError(f"{line}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def end(self) -> None:
        """End it with everything on it; its folder goes too."""
        with contextlib.suppress(OSError):
            ending = os.pidfd_open(self.pid)
            try:
                with self._connected() as connection:
                    connection.sendall(b'{"do": "end"}\n')
                if not select.select([ending], [], [], 30)[0]:
                    signal.pidfd_send_signal(ending, signal.SIGKILL)
                    select.select([ending], [], [], 10)
            finally:
                os.close(ending)
        if self.process is not None:
            if self.process.stdin:
                self.process.stdin.close()
            self.process.wait(30)
        _remove(self.cgroup, self.state)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.state / "control.sock"))
            yield connection


def notes() -> Path:
    """A file per machine that was started and not ended."""
    path = cache.folder() / "machines"
    path.mkdir(exist_ok=True)
    return path


def remove_remains() -> None:
    """What machines left behind whose first process was killed.

    Their processes, mounts and interfaces went with it; control groups and folders stay.
    """
    with cache.lock("machines"):
        for note in notes().glob("*.json"):
            state = Path(json.loads(note.read_text())["state"])
            if Machine(state, note.stem).gone():
                _remove(note.stem, state)


def _link(cgroup: str) -> str:
    # Names of interfaces may have 15 characters.
    return f"ss-{cgroup.rpartition('-')[2]}"


def _remove(cgroup: str, state: Path) -> None:
    # It goes with the machine's network, but the kernel takes that away when it has the time.
    link = ["ip", "link", "delete", _link(cgroup)]
    subprocess.run(link, capture_output=True, check=False)
    for hierarchy in init.hierarchies():
        init.remove_cgroup(hierarchy / cgroup)
    shutil.rmtree(state, ignore_errors=True)
    (notes() / f"{cgroup}.json").unlink(missing_ok=True)
