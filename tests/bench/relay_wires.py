"""What stands between a viewer and a session in the bench, and how each end speaks to it.

A wire is one process under test. Its two ends are raw sockets; whatever framing an end
has to speak is prepared beforehand, so that the load costs the bench as little as the
kernel allows and the relay is what is measured.
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from streamspace_common.relay.frames import header
from streamspace_embedded.ports import free_port

HOST = "127.0.0.1"
MASK = bytes((0x37, 0xFA, 0x21, 0x3D))
RFB_HELLO = b"RFB 003.008\n\x01\x01"


def frame(payload: bytes, *, masked: bool) -> bytes:
    """One binary WebSocket frame; a masked one carries `payload` as its masked bytes."""
    size = len(payload)
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x82, bit | size))
    elif size < 65536:
        head = struct.pack(">BBH", 0x82, bit | 126, size)
    else:
        head = struct.pack(">BBQ", 0x82, bit | 127, size)
    return head + (MASK if masked else b"") + payload


def masked(payload: bytes) -> bytes:
    repeated = MASK * (len(payload) // 4 + 1)
    return bytes(a ^ b for a, b in zip(payload, repeated, strict=False))


def clipboard(size: int) -> bytes:
    """One RFB message of `size` bytes: what a client may send much of."""
    return struct.pack(">Bxxxi", 6, size - 8) + bytes(size - 8)


@dataclass
class Ends:
    """A connection through a wire: the viewer's socket and the session's."""

    viewer: socket.socket
    session: socket.socket

    def close(self) -> None:
        self.viewer.close()
        self.session.close()


class Wire:
    """A relay under test. `down` is towards the viewer."""

    name = "direct"

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._listener = socket.create_server((HOST, 0), backlog=512)
        self.backend = self._listener.getsockname()[1]
        self.port = self.backend

    def connect(self) -> Ends:
        viewer = _dial(self.port)
        session, _ = self._listener.accept()
        session.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Ends(viewer, session)

    def down(self, payload: bytes) -> bytes:
        """What the session sends to have `payload` arrive."""
        return payload

    def up(self, payload: bytes) -> bytes:
        """What the viewer sends to have `payload` arrive."""
        return payload

    def arrives_down(self, size: int) -> int:
        """Bytes the viewer reads for a small message of `size`."""
        return size

    def arrives_up(self, size: int) -> int:
        """Bytes the session reads for a small message of `size`."""
        return size

    def cpu(self) -> float:
        """CPU seconds of the relay, its children included."""
        if self.process is None:
            return 0.0
        return sum(_cpu(each.pid) for each in self._tree())

    def memory(self) -> int:
        """Resident bytes of the relay, its children included."""
        if self.process is None:
            return 0
        return sum(each.memory_info().rss for each in self._tree())

    def stop(self) -> None:
        self._listener.close()
        if self.process is not None:
            for child in self._tree():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            self.process.wait()

    def _tree(self) -> list[psutil.Process]:
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def _run(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


class OurRelay(Wire):
    """The vnc-proxy: a viewer's WebSocket on one side, an agent's on the other."""

    name = "streamspace"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self._run(sys.executable, str(Path(__file__).parent / "relay_ours.py"), str(self.port))
        _wait_for(self.port)

    def connect(self) -> Ends:
        viewer = _dial(self.port)
        _upgrade(
            viewer,
            "/streams/bench-desktop-00000000",
            "Sec-WebSocket-Protocol: binary, streamspace.ticket.0123456789abcdef0123",
        )
        assert self.process is not None
        assert self.process.stdout is not None
        request = json.loads(self.process.stdout.readline())
        session = _dial(self.port)
        _upgrade(
            session, f"/tunnels/{request['tunnelId']}", f"Authorization: Bearer {request['secret']}"
        )
        viewer.sendall(frame(masked(RFB_HELLO), masked=True))
        _read(session, len(RFB_HELLO) + 2)
        return Ends(viewer, session)

    def down(self, payload: bytes) -> bytes:
        # As our agent sends it: with the mask that changes nothing.
        return header(len(payload), masked=True) + payload

    def up(self, payload: bytes) -> bytes:
        return frame(masked(payload), masked=True)

    def arrives_down(self, size: int) -> int:
        return size + 2

    def arrives_up(self, size: int) -> int:
        return size + 2


class Websockify(Wire):
    """websockify of PyPI: WebSocket to TCP, a process per connection."""

    name = "websockify"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        program = Path(sys.executable).parent / "websockify"
        self._run(str(program), f"{HOST}:{self.port}", f"{HOST}:{self.backend}")
        _wait_for(self.port)

    def connect(self) -> Ends:
        viewer = _dial(self.port)
        _upgrade(viewer, "/websockify", "Sec-WebSocket-Protocol: binary")
        session, _ = self._listener.accept()
        session.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Ends(viewer, session)

    def up(self, payload: bytes) -> bytes:
        return frame(masked(payload), masked=True)

    def arrives_down(self, size: int) -> int:
        return size + 2


class HaProxy(Wire):
    """Debian's HAProxy in TCP mode, one thread: what a byte costs at least."""

    name = "haproxy"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.port = free_port()
        program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise FileNotFoundError("haproxy is not installed")
        config = directory / "haproxy.cfg"
        config.write_text(
            "global\n  nbthread 1\n  maxconn 2000\n"
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n"
            "  timeout server 60s\n"
            f"listen bench\n  bind {HOST}:{self.port}\n  server one {HOST}:{self.backend}\n"
        )
        self._run(program, "-db", "-f", str(config))
        _wait_for(self.port, poke=self._listener)


def available(directory: Path) -> Iterator[Wire]:
    """Starts each relay there is; says which one is missing."""
    yield OurRelay()
    yield Websockify()
    try:
        yield HaProxy(directory)
    except FileNotFoundError as error:
        print(f"left out: {error}")


def _dial(port: int) -> socket.socket:
    sock = socket.create_connection((HOST, port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _upgrade(sock: socket.socket, path: str, header: str) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{header}\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, f"closed during the upgrade: {answer!r}"
        answer += byte
    assert answer.startswith(b"HTTP/1.1 101"), answer


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, "closed"
        data += piece
    return data


def _wait_for(port: int, poke: socket.socket | None = None) -> None:
    """Until the relay takes connections; `poke` is where such a trial may come out."""
    deadline = time.monotonic() + 15
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.05)
        else:
            break
    if poke is not None:
        poke.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            poke.accept()[0].close()
        poke.settimeout(None)


def _cpu(pid: int) -> float:
    """Seconds on a processor so far, to the nanosecond (psutil's are of 10 ms)."""
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9
