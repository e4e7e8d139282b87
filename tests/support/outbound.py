"""A network out of which nothing leads but a forward proxy, which lets through HTTPS only.

A network namespace with one link to this machine; the proxy (tinyproxy, from Debian) listens
on this machine's end, asks for a password, and connects to port 443 alone. What listens on
this machine's loopback is out of the namespace's reach by nature.
"""

import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.debian import UnavailableError, find, install

from streamspace_embedded.ports import answers

_PROGRAMS = {"tinyproxy": "tinyproxy-bin", "ip": "iproute2"}
_PORT = 3128
_START_TIMEOUT = 20.0


@dataclass(frozen=True)
class Outbound:
    """`prefix` runs a command inside; `proxy` is the only way out."""

    prefix: tuple[str, ...]
    proxy: str
    log: Path

    def reaches(self, host: str, port: int) -> bool:
        """Whether a program inside gets a connection to an address without the proxy."""
        code = f"import socket; socket.create_connection(({host!r}, {port}), 3)"
        done = subprocess.run(
            [*self.prefix, sys.executable, "-c", code], capture_output=True, check=False
        )
        return done.returncode == 0


@contextlib.contextmanager
def only_through_a_proxy(folder: Path) -> Iterator[Outbound]:
    """Such a network, removed again with everything in it.

    Raises:
        UnavailableError: this machine cannot make one.
    """
    install(_PROGRAMS)
    name = f"ss{secrets.token_hex(3)}"
    # 198.18.0.0/15 is for tests like this (RFC 2544); a link has four addresses of it.
    number = secrets.randbelow(2**14)
    near, far = (f"198.18.{number >> 6}.{(number & 63) * 4 + end}" for end in (1, 2))
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"no network namespace can be made: {error.stderr}") from error
    try:
        _ip("link", "add", name, "type", "veth", "peer", "name", "uplink", "netns", name)
        _ip("address", "add", f"{near}/30", "dev", name)
        _ip("link", "set", name, "up")
        _ip("-n", name, "address", "add", f"{far}/30", "dev", "uplink")
        _ip("-n", name, "link", "set", "uplink", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        with _tinyproxy(folder, near, far) as log:
            yield Outbound(
                (str(find("ip")), "netns", "exec", name),
                f"http://agent:a-word@{near}:{_PORT}",
                log,
            )
    finally:
        _ip("netns", "delete", name)


@contextlib.contextmanager
def _tinyproxy(folder: Path, near: str, far: str) -> Iterator[Path]:
    log, config = folder / "tinyproxy.log", folder / "tinyproxy.conf"
    config.write_text(
        f"Port {_PORT}\nListen {near}\nAllow {far}\nTimeout 600\nConnectPort 443\n"
        f'BasicAuth agent a-word\nLogFile "{log}"\nLogLevel Connect\nMaxClients 50\n'
    )
    with (folder / "tinyproxy.err").open("wb") as output:
        process = subprocess.Popen(
            [str(find("tinyproxy")), "-d", "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + _START_TIMEOUT
        while not answers(_PORT, near):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"tinyproxy: {(folder / 'tinyproxy.err').read_text()}")
            time.sleep(0.02)
        yield log
    finally:
        process.terminate()
        process.wait(10)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
