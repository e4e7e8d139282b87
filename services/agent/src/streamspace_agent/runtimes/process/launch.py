"""The start of a desktop, step by step, as fast as the steps allow.

The X server first: it says on a pipe which display it took. Then, over that display, the
background is painted and the window manager started; when that says that it manages
windows, the application and the panel follow together. The desktop counts as ready when
viewers get an answer on its socket and its first window is on the screen, or has taken
so long that a viewer may as well watch it come.

A session that serves a web client is ready when its port answers HTTP. Without a display
there is nothing but that.

Whatever vital ends meanwhile ends the start, with its last words as the reason. This
module starts only; the caller cleans up.
"""

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from streamspace_agent.ports import PassingFailure, PermanentFailure, ReportPhase
from streamspace_agent.runtimes.process import desktop, endings, wallpaper, xauthority
from streamspace_agent.runtimes.process.desktop import DesktopPlan, Program
from streamspace_agent.runtimes.process.paths import SessionPlaces
from streamspace_agent.runtimes.process.processes import WatchedProcess, spawn
from streamspace_agent.runtimes.process.x11 import Display, DisplayError
from streamspace_common.contracts.sessions import Phase, Reason

Result = TypeVar("Result")

_BANNER = b"RFB 003.0"
_HTTP_PATIENCE = 5.0
"""Seconds one question of a server that is still starting may take."""
_MANAGER_PROPERTY = "_NET_SUPPORTING_WM_CHECK"
_WINDOWS_PROPERTY = "_NET_CLIENT_LIST"
_TIME_TO_DIE = 0.25
"""Seconds an X server that has let go of its programs may take to be gone itself."""


@dataclass(frozen=True)
class Started:
    """One program of a desktop that runs."""

    role: str
    vital: bool
    process: WatchedProcess


@dataclass
class Launch:
    """One start of one desktop; times are in seconds.

    `window_patience` is how long a window may take to appear before the desktop counts
    as ready without it.
    """

    plan: DesktopPlan
    places: SessionPlaces
    home: Path
    environment: Mapping[str, str]
    timeout: float
    window_patience: float
    started: list[Started] = field(default_factory=list)
    display: int = 0

    async def run(self, report_phase: ReportPhase) -> None:
        """Start everything and wait until the desktop answers.

        Raises:
            PassingFailure: it took too long, or the X server failed.
            PermanentFailure: a program of the desktop ended at once.
            OSError: a program could not be started.
        """
        try:
            async with asyncio.timeout(self.timeout):
                await self._run(report_phase)
        except TimeoutError as error:
            raise PassingFailure(
                f"The session did not answer within {self.timeout:g} seconds."
            ) from error

    async def _run(self, report_phase: ReportPhase) -> None:
        if self.plan.x_server is None:
            await self._serve(report_phase)
        else:
            await self._show(self.plan.x_server, report_phase)
        report_phase(Phase.READY)

    async def _serve(self, report_phase: ReportPhase) -> None:
        if self.plan.application is not None:
            await self._start(self.plan.application, self.environment)
        report_phase(Phase.STARTED)
        await self._wait_served()

    async def _wait_served(self) -> None:
        if self.plan.http_port is not None:
            await self._while_alive(_wait_http(self.plan.http_port, self.plan.http_path))

    async def _show(self, x_server: tuple[str, ...], report_phase: ReportPhase) -> None:
        cookie = xauthority.new_cookie()
        self.places.xauthority.write_bytes(xauthority.file_content(cookie))
        self.places.xauthority.chmod(0o600)
        self.display = await self._start_display(x_server)
        try:
            async with await Display.open(self.display, cookie) as display:
                await self._while_alive(self._furnish(display, report_phase))
        except DisplayError as error:
            await self._explain_lost_display(error)

    async def _start_display(self, x_server: tuple[str, ...]) -> int:
        readable, writable = os.pipe()
        with os.fdopen(readable, "rb", buffering=0) as answer:
            try:
                argv = (*x_server, "-displayfd", str(writable))
                server = Program(desktop.DISPLAY, argv, vital=True)
                await self._start(server, self.environment, pass_fds=(writable,))
            finally:
                os.close(writable)
            return int(await self._while_alive(_first_line(answer.fileno())))

    async def _furnish(self, display: Display, report_phase: ReportPhase) -> None:
        environment = {**self.environment, "DISPLAY": f":{self.display}"}
        await display.watch_root()
        await display.paint_root(wallpaper.WIDTH, wallpaper.HEIGHT, wallpaper.strip())
        if self.plan.window_manager is not None:
            await self._start(self.plan.window_manager, environment)
            await self._while_alive(display.wait_root_property(_MANAGER_PROPERTY, bool))
        programs = [p for p in (self.plan.application, self.plan.panel) if p is not None]
        await asyncio.gather(*(self._start(program, environment) for program in programs))
        report_phase(Phase.STARTED)
        await self._while_alive(_wait_banner(self.places.rfb))
        await self._wait_served()
        if self.plan.http_port is not None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.window_patience):
                await self._while_alive(self._wait_window(display))

    async def _wait_window(self, display: Display) -> None:
        if self.plan.application is None:
            return
        if self.plan.window_manager is None:
            await display.wait_mapped()
        else:
            # The panel may come before the application or, slowly, long after it.
            await display.wait_root_property(_WINDOWS_PROPERTY, bool)

    async def _start(
        self, program: Program, environment: Mapping[str, str], pass_fds: tuple[int, ...] = ()
    ) -> None:
        process = await spawn(
            program.argv,
            environment=environment,
            cwd=self.home,
            log=self.places.log(program.role),
            pass_fds=pass_fds,
        )
        self.started.append(Started(program.role, program.vital, process))

    async def _while_alive(self, step: Coroutine[Any, Any, Result]) -> Result:
        """Do a step of the start unless something vital ends before it is done."""
        work = asyncio.ensure_future(step)
        end = asyncio.ensure_future(wait_vital_end(self.started))
        try:
            await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise self._ended_early(end.result())
        finally:
            work.cancel()
            end.cancel()
            await asyncio.gather(work, end, return_exceptions=True)

    async def _explain_lost_display(self, error: DisplayError) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * _TIME_TO_DIE):
                raise self._ended_early(await wait_vital_end(self.started)) from error
        raise PassingFailure(f"The display does not answer: {error}.") from error

    def _ended_early(self, gone: Started) -> PassingFailure | PermanentFailure:
        text = endings.tell(gone.role, gone.process.exit_code, self.places.log(gone.role))
        if gone.role == desktop.DISPLAY:
            return PassingFailure(text)
        return PermanentFailure(Reason.START_FAILED, text)


async def wait_vital_end(started: Iterable[Started]) -> Started:
    """The first vital program to end, or rather the one to blame for it.

    When the X server goes, the others notice sooner than the kernel has taken it apart;
    they are not to blame.
    """
    vital = [each for each in started if each.vital]
    ends = [asyncio.ensure_future(each.process.exited.wait()) for each in vital]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        # The display is started first.
        await asyncio.wait(ends[:1], timeout=_TIME_TO_DIE)
    finally:
        for task in ends:
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
    return next(each for each in vital if each.process.exited.is_set())


async def _first_line(handle: int) -> bytes:
    """Read a line from a pipe, for ever if it is closed before: its end tells the rest."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    os.set_blocking(handle, False)
    loop.add_reader(handle, readable.set)
    line = b""
    try:
        while not line.endswith(b"\n"):
            await readable.wait()
            readable.clear()
            try:
                piece = os.read(handle, 64)
            except BlockingIOError:
                continue
            if not piece:
                loop.remove_reader(handle)
                await asyncio.Event().wait()
            line += piece
    finally:
        loop.remove_reader(handle)
    return line


async def _wait_banner(socket: Path) -> None:
    """Wait until viewers are really answered."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                if (await reader.readexactly(12)).startswith(_BANNER):
                    return
            finally:
                writer.close()
        await asyncio.sleep(0.01)


async def _wait_http(port: int, path: str) -> None:
    """Wait until the port answers HTTP, whatever the answer: any is a server's."""
    target = quote(path, safe="/%?=&;:@!$'()*+,~-._")
    question = f"HEAD {target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(question.encode())
                async with asyncio.timeout(_HTTP_PATIENCE):
                    if (await reader.readexactly(5)) == b"HTTP/":
                        return
            finally:
                writer.close()
        await asyncio.sleep(0.02)
