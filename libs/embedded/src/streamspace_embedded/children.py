"""Child processes: started, watched, started again, and ended by their process ids.

Each child is watched through a pidfd, so its end is known at once and nothing polls.
A child that ends by itself is an incident: it is told and started again, with
growing delay. So is one that lives on and can do its work no more: it is ended first.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from streamspace_embedded.ports import answers

_READY_POLL = 0.05
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 10.0
_HEALTHY_AFTER = 30.0
_SOUND_EVERY = 5.0
_DOUBTS = 2
"""Times in a row that a child has to say that it cannot go on."""


class StartError(Exception):
    """A process did not come up; the message says where to look."""


class Server(Protocol):
    """Something that runs as one process of ours."""

    name: str

    @property
    def pid(self) -> int | None: ...
    def start(self) -> None:
        """Start it.

        Raises:
            StartError: it cannot be started, now.
        """
        ...

    def is_ready(self) -> bool: ...
    def is_sound(self) -> bool:
        """False once only a new start can help; asked while it is ready."""
        ...

    def stop(self) -> None: ...
    def poll(self) -> int | None:
        """The exit status once it has ended, and reap it."""
        ...


class Program:
    """A program with its log; ready when `probe` says so, sound while `sound` does."""

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        log: Path,
        probe: Callable[[], bool],
        sound: Callable[[], bool] = lambda: True,
        environment: Mapping[str, str] | None = None,
        stop_timeout: float = 25.0,
    ) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._probe = probe
        self._sound = sound
        self._environment = environment
        self._stop_timeout = stop_timeout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._environment) if self._environment is not None else None,
                # Ctrl-C in the terminal is the launcher's to handle, in order.
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        return self._probe()

    def is_sound(self) -> bool:
        return self._sound()

    def poll(self) -> int | None:
        return self._process.poll() if self._process else None

    def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def http_probe(url: str) -> Callable[[], bool]:
    def probe() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - our own health port
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    return probe


def port_probe(port: int) -> Callable[[], bool]:
    return lambda: answers(port)


class Watcher:
    """Keeps a set of servers running until `stop_all`."""

    def __init__(
        self,
        tell: Callable[[str], None],
        changed: Callable[[], None],
        *,
        sound_every: float = _SOUND_EVERY,
    ) -> None:
        """`tell` shows a person what happened; `changed` is called when pids or readiness do.

        `sound_every` is the pause between looks for a child that cannot go on, in seconds.
        """
        self._tell = tell
        self._changed = changed
        self._sound_every = sound_every
        self._servers: dict[str, Server] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ready: set[str] = set()
        self._ended: dict[str, asyncio.Event] = {}
        self._stopping = False

    @property
    def pids(self) -> dict[str, int]:
        return {name: pid for name, server in self._servers.items() if (pid := server.pid)}

    def all_ready(self) -> bool:
        return self._ready == set(self._servers)

    async def start(self, server: Server) -> None:
        """Start and watch; returns at once."""
        self._servers[server.name] = server
        await asyncio.to_thread(server.start)
        self._tasks[server.name] = asyncio.create_task(
            self._watch(server), name=f"watch {server.name}"
        )
        self._changed()

    async def wait_ready(self, name: str, timeout: float) -> None:
        """Wait until it is ready, over restarts.

        Raises:
            StartError: after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while name not in self._ready:
            if time.monotonic() > deadline:
                raise StartError(f"{name} is not ready after {timeout:.0f} seconds")
            await asyncio.sleep(_READY_POLL)

    async def stop_all(self, *waves: list[str]) -> None:
        """End servers in waves, one wave after another; what is not named goes last."""
        self._stopping = True
        named = {name for wave in waves for name in wave}
        rest = [name for name in self._servers if name not in named]
        for wave in (*waves, rest):
            await asyncio.gather(*(self._stop(name) for name in wave if name in self._servers))
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _stop(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(self._servers[name].stop)
        self._ready.discard(name)

    async def _watch(self, server: Server) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            care = asyncio.create_task(self._take_care(server))
            try:
                await self._until_ended(server)
            finally:
                care.cancel()
                await asyncio.gather(care, return_exceptions=True)
            self._ready.discard(server.name)
            self._changed()
            failures = 1 if time.monotonic() - began > _HEALTHY_AFTER else failures + 1
            self._tell(f"{server.name} {_how(server.poll())}; starting it again")
            failures = await self._start_again(server, failures)
            self._changed()

    async def _start_again(self, server: Server, failures: int) -> int:
        """Try until it starts; how often it has failed by then.

        What it ended of, a full disk for instance, may well keep it from starting for a while.
        """
        while True:
            await asyncio.sleep(min(_FIRST_DELAY * 2 ** (failures - 1), _LONGEST_DELAY))
            try:
                await asyncio.to_thread(server.start)
            except (StartError, OSError) as error:
                self._tell(f"{server.name} does not start: {error}")
                failures += 1
            else:
                return failures

    async def _until_ready(self, server: Server) -> None:
        # Another process's readiness can only be asked for.
        while not await asyncio.to_thread(server.is_ready):  # noqa: ASYNC110
            await asyncio.sleep(_READY_POLL)
        self._ready.add(server.name)
        self._changed()

    async def _take_care(self, server: Server) -> None:
        """Wait until it is ready; from then on, end it should it be able to do no more."""
        await self._until_ready(server)
        doubts = 0
        while doubts < _DOUBTS:
            await asyncio.sleep(self._sound_every)
            doubts = 0 if await asyncio.to_thread(server.is_sound) else doubts + 1
        self._tell(f"{server.name} runs and cannot go on by itself")
        await asyncio.to_thread(server.stop)

    async def _until_ended(self, server: Server) -> None:
        pid = server.pid
        if pid is None:
            return
        with _process_handle(pid) as handle:
            if handle is None:
                return
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            loop.add_reader(handle, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(handle)
        server.poll()


@contextlib.contextmanager
def _process_handle(pid: int) -> Iterator[int | None]:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _how(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
