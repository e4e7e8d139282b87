"""The first process of a machine made of namespaces: it starts programs when asked.

`machine.py` runs this file as process 1 of a new process namespace, so that nothing can
outlive it: when it ends, however it ends, the kernel ends all others. It ends when it
is told to, or when the one that started it is gone (its standard input closes), and
takes the control groups with it; mounts, interfaces and packet filter rules are in
namespaces that vanish with their last process.

One line of JSON per connection to `control.sock`:

    {"do": "start", "name": ..., "argv": [...], "environment": {...}}
    {"do": "signal", "name": ..., "signal": 9}
    {"do": "state"}      -> {"name": {"running": true, "status": null}, ...}
    {"do": "end"}

Usage: init.py STATE CGROUP [--detached]
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# The kubelet wants these values of the kernel and would set them for the whole machine.
# It finds files of ours in their place.
WANTED_BY_KUBELET = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

# Programs write here whatever they are told; each gets a folder of this machine's own. One that
# the machine outside does not have is made there, empty, to be covered, and stays.
OWN_FOLDERS = ("/run", "/var/log", "/var/lib/cni")


class Init:
    def __init__(self, state: Path, cgroup: str, *, detached: bool) -> None:
        self.state = state
        self.cgroup = cgroup
        self.detached = detached
        self.programs: dict[str, int] = {}
        self.statuses: dict[str, int] = {}
        self.selector = selectors.DefaultSelector()

    def prepare(self) -> None:
        mount("--make-rshared", "/")
        for path in OWN_FOLDERS:
            own = self.state / "folders" / path.lstrip("/").replace("/", "-")
            own.mkdir(parents=True)
            Path(path).mkdir(exist_ok=True)
            mount("--bind", str(own), path)
        for name, value in WANTED_BY_KUBELET.items():
            real = Path("/proc/sys") / name
            if real.exists():
                double = self.state / "sysctls" / name
                double.parent.mkdir(parents=True, exist_ok=True)
                double.write_text(value + "\n")
                mount("--bind", str(double), str(real))
        for hierarchy in hierarchies():
            make_cgroup(hierarchy / self.cgroup)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    def run(self) -> None:
        with socket.socket(socket.AF_UNIX) as control:
            control.bind(str(self.state / "control.sock"))
            control.listen(16)
            control.setblocking(False)
            self.selector.register(control, selectors.EVENT_READ)
            if not self.detached:
                self.selector.register(0, selectors.EVENT_READ)
            wake_up, signalled = os.pipe()
            os.set_blocking(signalled, False)
            signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
            signal.signal(signal.SIGCHLD, lambda *_: None)
            signal.signal(signal.SIGTERM, lambda *_: None)
            self.selector.register(wake_up, selectors.EVENT_READ)
            while True:
                for key, _ in self.selector.select():
                    if key.fileobj is control:
                        if not self.answer(control):
                            return
                    elif key.fileobj == wake_up:
                        os.read(wake_up, 4096)
                        self.reap()
                    elif not os.read(0, 4096):
                        return

    def answer(self, control: socket.socket) -> bool:
        connection, _ = control.accept()
        with connection:
            connection.settimeout(5)
            try:
                with connection.makefile("rw") as stream:
                    request = json.loads(stream.readline() or "{}")
                    if request.get("do") == "end":
                        return False
                    try:
                        reply = self.act(request)
                    except (OSError, KeyError) as error:
                        reply = {"error": str(error)}
                    stream.write(json.dumps(reply) + "\n")
            except BrokenPipeError:
                pass  # it only wanted to know who answers
            except (OSError, ValueError) as error:
                print(f"init: {error!r}", flush=True)
        return True

    def act(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "start":
                self.start(request["name"], request["argv"], request["environment"])
            case "signal":
                if request["name"] in self.programs:
                    os.kill(self.programs[request["name"]], request["signal"])
        self.reap()
        return {
            name: {"running": name in self.programs, "status": self.statuses.get(name)}
            for name in {*self.programs, *self.statuses}
        }

    def start(self, name: str, argv: list[str], environment: dict[str, str]) -> None:
        self.statuses.pop(name, None)
        log = str(self.state / "logs" / f"{name}.log")
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.programs[name] = os.posix_spawnp(
            argv[0],
            argv,
            {**os.environ, **environment},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, append, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )

    def reap(self) -> None:
        """Collect the ended, also those whose parents ended before them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for name, known in list(self.programs.items()):
                if known == pid:
                    del self.programs[name]
                    self.statuses[name] = os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """End every process of this namespace, so that the control groups are free."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            self.reap()
            if len([path for path in Path("/proc").iterdir() if path.name.isdecimal()]) == 1:
                break
            time.sleep(0.01)
        for hierarchy in hierarchies():
            remove_cgroup(hierarchy / self.cgroup)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def hierarchies() -> list[Path]:
    """The mounted control group hierarchies: one, or with version 1 one per controller."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, *_ = line.split()
        if kind in {"cgroup", "cgroup2"} and Path(path) not in found:
            found.append(Path(path))
    return found


def make_cgroup(path: Path) -> None:
    path.mkdir(exist_ok=True)
    # Version 1: a new group may use no processor at all before it is told which.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (path / name).exists() and not (path / name).read_text().strip():
            (path / name).write_text((path.parent / name).read_text())


def remove_cgroup(path: Path) -> None:
    if not path.is_dir():
        return
    for folder, _, _ in os.walk(path, topdown=False):
        deadline = time.monotonic() + 5
        while True:
            try:
                Path(folder).rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                # The kernel lets go of the ended a moment later.
                if time.monotonic() > deadline:
                    print(f"init: {folder} is still in use", flush=True)
                    break
                time.sleep(0.02)


def main() -> None:
    state, cgroup, *options = sys.argv[1:]
    init = Init(Path(state), cgroup, detached="--detached" in options)
    try:
        init.prepare()
        init.run()
    finally:
        init.end()


if __name__ == "__main__":
    main()
