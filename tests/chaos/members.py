"""The processes of a run: each can be started, killed, paused and ended, by its own pid."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import psutil

from streamspace_embedded.postgres import PostgresError, PostgresServer

_END_TIMEOUT = 40.0


class Member(Protocol):
    """One process (PostgreSQL: one family of them)."""

    name: str

    @property
    def pid(self) -> int | None:
        """Of the process that was started last; None before the first start."""

    def start(self) -> None: ...
    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""

    def end(self) -> None:
        """SIGTERM, as an operator or an upgrade ends it, and wait until it is gone."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def poll(self) -> int | None:
        """The exit status once it has ended, and reap it."""


class Program:
    """A program with its environment and log."""

    def __init__(
        self, name: str, command: list[str], *, environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self._command = command
        self._environment = dict(environment)
        self._log = log
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
                env=self._environment,
                start_new_session=True,
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        # One that was paused hears of it only now.
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def pause(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def poll(self) -> int | None:
        return self._process.poll() if self._process else None


class Postgres:
    """The database server with all its processes."""

    name = "postgres"

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    @property
    def pid(self) -> int | None:
        return self.server.pid

    def start(self) -> None:
        self.server.start()

    def kill(self) -> None:
        self.server.kill()

    def end(self) -> None:
        self.resume()
        self.server.stop()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def poll(self) -> int | None:
        return None if self.server.running else 1

    def _signal(self, number: signal.Signals) -> None:
        if self.server.pid is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.server.pid)
            for process in (parent, *parent.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)


class Keeper:
    """Keeps members running, and does to them what a fault asks.

    A member that ends by itself is an incident: it is told, and started again after a
    pause that grows while it keeps ending, as a launcher or Kubernetes does it.
    """

    _PAUSES = (0.5, 1.0, 2.0, 4.0)
    _CALM = 20.0

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._members: dict[str, Member] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._handled: set[str] = set()
        self.incidents: list[str] = []

    @property
    def pids(self) -> set[int]:
        return {pid for member in self._members.values() if (pid := member.pid) is not None}

    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    async def start(self, member: Member) -> None:
        self._members[member.name] = member
        await asyncio.to_thread(member.start)
        self._watches[member.name] = asyncio.create_task(
            self._watch(member), name=f"watch {member.name}"
        )

    async def kill(self, name: str, down: float) -> None:
        """Kill it and start it again `down` seconds later."""
        await self._while_down(self._members[name], self._members[name].kill, down)

    async def restart(self, name: str, down: float) -> None:
        await self._while_down(self._members[name], self._members[name].end, down)

    async def pause(self, name: str, seconds: float) -> None:
        member = self._members[name]
        member.pause()
        try:
            await asyncio.sleep(seconds)
        finally:
            member.resume()

    async def stop_all(self, *waves: list[str]) -> None:
        """End everything, wave by wave; what no wave names goes last."""
        for watch in self._watches.values():
            watch.cancel()
        await asyncio.gather(*self._watches.values(), return_exceptions=True)
        named = {name for wave in waves for name in wave}
        rest = [name for name in self._members if name not in named]
        for wave in (rest, *waves):
            ends = (asyncio.to_thread(self._members[n].end) for n in wave if n in self._members)
            await asyncio.gather(*ends)

    async def _while_down(self, member: Member, down: Callable[[], None], seconds: float) -> None:
        self._handled.add(member.name)
        try:
            await asyncio.to_thread(down)
            await asyncio.sleep(seconds)
            await self._start(member)
        finally:
            self._handled.discard(member.name)

    async def _watch(self, member: Member) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await _ended(member)
            if member.name in self._handled:
                while member.name in self._handled:
                    await asyncio.sleep(0.05)
                continue
            status = member.poll()
            calm = loop.time() - began > self._CALM
            failures = 0 if calm else min(failures + 1, len(self._PAUSES) - 1)
            incident = f"{member.name} ended by itself with status {status}"
            self.incidents.append(incident)
            self._tell(incident)
            await asyncio.sleep(self._PAUSES[failures])
            if member.name not in self._handled:
                await self._start(member)

    async def _start(self, member: Member) -> None:
        """Until it starts: what it ended of may keep it from starting for a while."""
        while True:
            try:
                await asyncio.to_thread(member.start)
            except (PostgresError, OSError) as error:
                self._tell(f"{member.name} does not start: {error}")
                await asyncio.sleep(self._PAUSES[0])
            else:
                return


async def _ended(member: Member) -> None:
    """Return when the process that runs now has ended."""
    pid = member.pid
    if pid is None:
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
