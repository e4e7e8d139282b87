"""The load of the relay bench: processes that send, swallow and echo over raw sockets."""

import contextlib
import ctypes
import multiprocessing
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from typing import Any

_FORK = multiprocessing.get_context("fork")
_PIECE = 1024 * 1024


@contextmanager
def running(work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run `work` in a process of its own for as long as the block lasts."""
    process = _FORK.Process(target=_quietly, args=(work, *arguments), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _quietly(work: Callable[..., None], *arguments: Any) -> None:
    # The other end goes first: that is how a run ends.
    with contextlib.suppress(OSError):
        work(*arguments)


def counter() -> "Synchronized[int]":
    """A number shared with the processes of a run."""
    return _FORK.Value(ctypes.c_uint64, 0)


def send_for_ever(sock: socket.socket, message: bytes) -> None:
    """Send `message` over and over, many at a time."""
    sock.setblocking(True)
    batch = message * max(1, _PIECE // len(message))
    while True:
        sock.sendall(batch)


def send_counted(sock: socket.socket, message: bytes, sent: "Synchronized[int]") -> None:
    """The same, counting what the socket took."""
    sock.setblocking(True)
    batch = memoryview(message * max(1, _PIECE // len(message)))
    at = 0
    while True:
        taken = sock.send(batch[at:])
        sent.value += taken
        at = (at + taken) % len(batch)


def swallow(sock: socket.socket, count: "Synchronized[int]") -> None:
    """Read and forget, counting."""
    sock.setblocking(True)
    buffer = bytearray(_PIECE)
    total = 0
    while size := sock.recv_into(buffer):
        total += size
        count.value = total


def echo(socks: list[socket.socket], arrives: int, answer: bytes) -> None:
    """Answer each message of `arrives` bytes, on any of the sockets."""
    selector = selectors.DefaultSelector()
    for sock in socks:
        sock.setblocking(True)
        selector.register(sock, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            data = ready.recv(65536)
            if not data:
                selector.unregister(ready)
            elif len(data) == arrives:
                ready.sendall(answer)
            else:
                ready.sendall(answer * (len(data) // arrives))


def round_trips(
    socks: list[socket.socket], message: bytes, arrives: int, *, seconds: float, rate: float
) -> list[float]:
    """Ping every socket `rate` times a second, evenly spread; returns seconds per round trip."""
    selector = selectors.DefaultSelector()
    for sock in socks:
        sock.setblocking(True)
        selector.register(sock, selectors.EVENT_READ)
    pending: dict[socket.socket, tuple[float, int]] = {}
    times: list[float] = []
    gap = 1 / (rate * len(socks))
    begin = now = time.perf_counter()
    sent = 0
    while now < begin + seconds or (pending and now < begin + seconds + 2):
        due = begin + sent * gap
        if now >= due and now < begin + seconds:
            due_one = socks[sent % len(socks)]
            sent += 1
            if due_one not in pending:
                pending[due_one] = (time.perf_counter(), 0)
                due_one.sendall(message)
            now = time.perf_counter()
            continue
        for key, _ in selector.select(max(0.0, min(due - now, 0.05))):
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            data = ready.recv(65536)
            at, got = pending.pop(ready)
            got += len(data)
            if got >= arrives:
                times.append(time.perf_counter() - at)
            else:
                pending[ready] = (at, got)
        now = time.perf_counter()
    selector.close()
    return times


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def settle(sock: socket.socket) -> threading.Thread:
    """Read a socket in the background until it is closed, so that nothing blocks on it."""
    thread = threading.Thread(target=_quietly, args=(swallow, sock, counter()), daemon=True)
    thread.start()
    return thread
