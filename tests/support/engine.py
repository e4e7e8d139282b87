"""A real container engine for the tests: the one that answers, else Debian's own.

Ours runs in namespaces of its own (network, mounts, processes), kept open by one small
process. Its bridges, firewall rules and mounts exist in there alone, whatever dies and
however: when that process is killed, the kernel takes everything along. What remains to be
removed are a folder, empty control groups and one end of a virtual cable, and nothing of
the machine's own network is ever changed.

That cable, and a route to the engine's addresses, is how the tests reach the containers.
The way out (a build installs packages) goes through slirp4netns, an ordinary process.
"""

import contextlib
import ctypes
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
from tests.support.debian import UnavailableError, install

_PROGRAMS = {
    "dockerd": "docker.io",
    "iptables": "iptables",
    "ip": "iproute2",
    "slirp4netns": "slirp4netns",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
_START_SECONDS = 40.0
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


class EngineError(Exception):
    """A command of the engine failed; with its last words."""


@dataclass
class Engine:
    """An engine that answers at `url`.

    `here` is the address under which containers and the engine reach this machine.
    """

    url: str
    here: str
    _own: "_OwnEngine | None" = None

    @property
    def is_own(self) -> bool:
        """Whether the tests have started it."""
        return self._own is not None

    def docker(
        self, *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 600
    ) -> str:
        """Run the `docker` program; returns what it prints.

        Raises:
            EngineError: it failed.
        """
        done = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, "DOCKER_HOST": self.url, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            words = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
            raise EngineError(f"docker {' '.join(arguments)}: {words}")
        return done.stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.docker("inspect", name))
        return dict(found)

    def restart(self) -> None:
        """Kill the engine as a crash would and start it again; skips one that is not ours."""
        if self._own is None:
            raise UnavailableError("the engine is not the tests' own, so it is not restarted")
        self._own.kill_daemon()
        self._own.start_daemon()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """The engine is down meanwhile."""
        if self._own is None:
            raise UnavailableError("the engine is not the tests' own, so it is not stopped")
        self._own.kill_daemon()
        try:
            yield
        finally:
            self._own.start_daemon()

    @contextlib.contextmanager
    def published(self, port: int) -> Iterator[int]:
        """A port of this machine that leads to one published on the engine's loopback."""
        if self._own is None:
            yield port
            return
        with _Forwarder(self._own.pid, port) as forwarder:
            yield forwarder.port


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """The engine at DOCKER_HOST or the default socket, else one of our own.

    Raises:
        UnavailableError: there is none and none can be started here.
    """
    given = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if _answers(given):
        yield Engine(given, "127.0.0.1")
        return
    if os.geteuid() != 0:
        raise UnavailableError("no container engine answers, and only root can start one")
    if not Path("/dev/net/tun").exists():
        raise UnavailableError(
            "no container engine answers, and /dev/net/tun is missing for our own"
        )
    install(_PROGRAMS)
    own = _OwnEngine(Path(tempfile.mkdtemp(prefix="streamspace-engine-", dir="/var/tmp")))
    try:
        own.open()
        yield Engine(own.url, str(own.places.outside), own)
    finally:
        own.close()


def _answers(url: str) -> bool:
    if url.startswith("unix://") and not Path(url.removeprefix("unix://")).is_socket():
        return False
    if shutil.which("docker") is None:
        return False
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        env={**os.environ, "DOCKER_HOST": url},
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode == 0


@dataclass(frozen=True)
class _Places:
    """The addresses of one engine, all within one private network nobody here uses."""

    network: ipaddress.IPv4Network

    @property
    def outside(self) -> ipaddress.IPv4Address:
        return self.network[1]

    @property
    def inside(self) -> ipaddress.IPv4Address:
        return self.network[2]

    @property
    def bridge(self) -> str:
        return f"{self.network[256 + 1]}/24"

    @property
    def way_out(self) -> str:
        return f"{self.network[512]}/24"

    @property
    def name_server(self) -> ipaddress.IPv4Address:
        return self.network[512 + 3]

    @property
    def pool(self) -> str:
        return f"{self.network[128 * 256]}/17"

    @classmethod
    def free(cls) -> "_Places":
        routes = json.loads(_run("ip", "-j", "-4", "route", "show", "table", "all"))
        taken = [
            ipaddress.IPv4Network(route["dst"], strict=False)
            for route in routes
            if route["dst"] != "default"
        ]
        candidates = [ipaddress.IPv4Network(f"10.{number}.0.0/16") for number in range(201, 250)]
        offset = os.getpid() % len(candidates)
        for candidate in candidates[offset:] + candidates[:offset]:
            if not any(candidate.overlaps(network) for network in taken):
                return cls(candidate)
        raise UnavailableError("no private network is free for a container engine")


@dataclass
class _OwnEngine:
    folder: Path
    pid: int = 0
    places: _Places = field(default_factory=_Places.free)
    _holder: subprocess.Popen[bytes] | None = None
    _way_out: subprocess.Popen[bytes] | None = None
    _sleeper: int = 0

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @property
    def _group(self) -> str:
        return self.folder.name

    @property
    def _cable(self) -> str:
        return f"ss{os.getpid()}"[:14]

    def open(self) -> None:
        try:
            self._open_namespaces()
            self._lay_cable()
            self._open_way_out()
        except (subprocess.CalledProcessError, OSError, TimeoutError) as error:
            raise UnavailableError(f"namespaces for a container engine: {_words(error)}") from error
        self.start_daemon()

    def close(self) -> None:
        if self._way_out is not None:
            self._way_out.kill()
            self._way_out.wait()
        if self._holder is not None:
            # The first process ends when all others of the namespaces have.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid or self._holder.pid, signal.SIGKILL)
            self._holder.wait()
        subprocess.run(["ip", "link", "delete", self._cable], capture_output=True, check=False)
        for group in sorted(_CONTROL_GROUPS.glob(f"**/{self._group}"), reverse=True):
            _remove_group(group)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_daemon(self) -> None:
        log = self.folder / "dockerd.log"
        # Left to the namespaces' first process: a child of ours that is started anew within
        # a test would look like one the test has left behind.
        _run(
            *self._inside("sh", "-c", f'"$@" >>"{log}" 2>&1 </dev/null &', "sh", "dockerd"),
            "--data-root", str(self.folder / "data"),
            "--exec-root", str(self.folder / "exec"),
            "--pidfile", str(self.folder / "dockerd.pid"),
            "--host", self.url,
            "--bip", self.places.bridge,
            "--default-address-pool", f"base={self.places.pool},size=24",
            "--dns", str(self.places.name_server),
            "--insecure-registry", f"{self.places.network[0]}/30",
            "--cgroup-parent", f"/{self._group}",
        )  # fmt: skip
        ends = time.monotonic() + _START_SECONDS
        while not _answers(self.url):
            if not self._processes() or time.monotonic() > ends:
                words = " | ".join(log.read_text(errors="replace").strip().splitlines()[-4:])
                raise UnavailableError(f"dockerd does not start here: {words}")
            time.sleep(0.1)

    def kill_daemon(self) -> None:
        """End the daemon and its helpers at once; its containers' processes die with them."""
        doomed = self._processes()
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(doomed, timeout=20)
        (self.folder / "dockerd.pid").unlink(missing_ok=True)

    def _processes(self) -> list[psutil.Process]:
        """All in the namespaces but the two that keep them open."""
        return [
            process
            for process in psutil.Process(self.pid).children(recursive=True)
            if process.pid != self._sleeper
        ]

    def _open_namespaces(self) -> None:
        self._holder = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL",
                "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
                "docker-init", "--", "sleep", "infinity",
            ],
            stdin=subprocess.DEVNULL,
            # It complains of what it does when its child is killed, which is how it ends.
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        ends = time.monotonic() + 10
        while not self.pid:
            if self._holder.poll() is not None or time.monotonic() > ends:
                raise TimeoutError("unshare failed")
            held = psutil.Process(self._holder.pid).children()
            # It is there before it has become `docker-init`, and then its /proc is not mounted.
            begun = held and held[0].name() in {"docker-init", "tini"} and held[0].children()
            if begun:
                self.pid, self._sleeper = held[0].pid, begun[0].pid
            else:
                time.sleep(0.02)

    def _lay_cable(self) -> None:
        places = self.places
        _run(
            "ip", "link", "add", self._cable, "type", "veth",
            "peer", "name", "host0", "netns", str(self.pid),
        )  # fmt: skip
        _run("ip", "address", "add", f"{places.outside}/30", "dev", self._cable)
        _run("ip", "link", "set", self._cable, "up")
        _run("ip", "route", "add", str(places.network), "via", str(places.inside))
        steps = [
            "ip link set lo up",
            f"ip address add {places.inside}/30 dev host0",
            "ip link set host0 up",
            # Before the engine does it: then it leaves the default policy open, so that the
            # way from the cable to the containers is.
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            # Where the engine would leave a key and a folder behind.
            "if [ -d /etc/docker ]; then mount -t tmpfs tmpfs /etc/docker; fi",
            "mount -t tmpfs tmpfs /run",
        ]
        _run(*self._inside("sh", "-e", "-c", "\n".join(steps)))

    def _open_way_out(self) -> None:
        self._way_out = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL",
                "slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback",
                f"--cidr={self.places.way_out}", str(self.pid), "tap0",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", *command]


class _Forwarder:
    """Hands connections to a port of ours over to one on the namespaces' loopback.

    A socket belongs to the network namespace of the thread that made it, so each
    connection is made by a thread that has entered the other one.
    """

    def __init__(self, pid: int, port: int) -> None:
        self._namespace = f"/proc/{pid}/ns/net"
        self._far_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            enter_network(self._namespace)
            try:
                far = socket.create_connection(("127.0.0.1", self._far_port), timeout=10)
            except OSError:
                return
            far.settimeout(None)
            with far:
                self._open.update({near, far})
                back = threading.Thread(target=_copy, args=(far, near), daemon=True)
                back.start()
                _copy(near, far)
                back.join()
                self._open.difference_update({near, far})


def enter_network(namespace: str) -> None:
    """Let this thread, and no other, live in another network namespace from now on."""
    with Path(namespace).open("rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def _words(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"
    return str(error)


def _remove_group(group: Path) -> None:
    """Remove a control group with those below it; they are empty, their processes are gone."""
    if not group.is_dir():
        return
    for child in group.iterdir():
        if child.is_dir():
            _remove_group(child)
    for _ in range(50):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                for pid in (group / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.1)
        else:
            return
