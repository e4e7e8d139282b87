"""`streamspace-embedded up` runs everything on this machine; `down` ends it;
`recover-admin` gives somebody who lost the password a new one.

The order: PostgreSQL and NATS, then all services at once, each of which waits for
what it needs; the agent as soon as its enrolment is written. Ctrl-C ends them the
other way round, so that a session's end is still recorded.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from streamspace_embedded import databases, ingress, orphans, trust, wiring
from streamspace_embedded.accounts import AccountError
from streamspace_embedded.children import Program, StartError, Watcher, http_probe
from streamspace_embedded.ingress import Ingress
from streamspace_embedded.layout import Layout, trim_log
from streamspace_embedded.machine import check_machine
from streamspace_embedded.ports import free_port
from streamspace_embedded.postgres import PostgresError, PostgresServer
from streamspace_embedded.servers import PostgresChild, nats_program

_START_TIMEOUT = 60.0
_TRIM_EVERY = 60.0


def tell(message: str) -> None:
    print(message, flush=True)


class Launcher:
    """One run of everything."""

    def __init__(
        self,
        layout: Layout,
        *,
        host: str,
        port: int,
        stream_port: int,
        ingress: Ingress | None = None,
    ) -> None:
        self._layout = layout
        self._host, self._port, self._stream_port = host, port, stream_port
        self._ingress = ingress
        self._names = (*wiring.NAMES, *((wiring.INGRESS,) if ingress else ()))
        self._watcher = Watcher(lambda message: tell(f"  {message}"), self._write_state)
        self._expected = {"postgres", "nats", *self._names}
        self._health: dict[str, str] = {}
        self._began = time.monotonic()

    @property
    def url(self) -> str:
        return f"http://localhost:{self._port}"

    async def run(self) -> None:
        """Start, wait for a signal, and stop.

        Raises:
            StartError: something does not come up; everything is stopped again.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        starting = asyncio.create_task(self._start())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._greet()
                await self._keep_house_until(stop)
        finally:
            starting.cancel()
            stopped.cancel()
            await asyncio.gather(starting, stopped, return_exceptions=True)
            await self._stop()

    async def _start(self) -> None:
        more = ("websocket",) if self._ingress else ()
        ports = self._layout.inner_ports("nats", "monitoring", "postgres", *more)
        known = trust.load(self._layout)
        config = trust.write_credentials(
            self._layout,
            known,
            nats_port=ports["nats"],
            monitoring_port=ports["monitoring"],
            websocket_port=ports.get("websocket"),
        )
        addresses = wiring.Addresses(
            host=self._host,
            port=self._port,
            stream_port=self._stream_port,
            nats_port=ports["nats"],
            postgres_port=ports["postgres"],
            health_ports={name: free_port() for name in self._names},
            ingress=self._agents_way(ports),
        )
        server = PostgresServer(self._layout.postgres, port=ports["postgres"])
        await self._watcher.start(
            nats_program(self._layout, config, ports["nats"], ports["monitoring"])
        )
        with self._progress("PostgreSQL", server.log):
            await self._watcher.start(PostgresChild(server))
            await databases.prepare(server.url, known.database_passwords)
        with self._progress("nats"):
            await self._watcher.wait_ready("nats", _START_TIMEOUT)
        orphans.adopt_orphans(lambda: set(self._watcher.pids.values()), lambda: None)
        web_root = _built_web_app()
        first = None
        for process in wiring.processes(
            self._layout, known, addresses, web_root=web_root, outer=os.environ
        ):
            if process.name == wiring.AGENT:
                await self._enrolled()
            await self._watcher.start(self._program(process, addresses))
            if process.name == "session" and not self._layout.enrolment.exists():
                first = process.name
                # The very first start: it makes the streams, and the others need not complain.
                with self._progress(process.name):
                    await self._watcher.wait_ready(process.name, _START_TIMEOUT)
        for name in self._names:
            if name == first:
                continue
            with self._progress(name):
                await self._watcher.wait_ready(name, _START_TIMEOUT)

    def _agents_way(self, ports: Mapping[str, int]) -> wiring.AgentsWay | None:
        if self._ingress is None:
            return None
        certificate = self._ingress.prepare(self._layout, datetime.now(UTC))
        return wiring.AgentsWay(self._ingress, certificate, ports["websocket"])

    def _program(self, process: wiring.Process, addresses: wiring.Addresses) -> Program:
        health = f"http://127.0.0.1:{addresses.health_ports[process.name]}"
        self._health[process.name] = health
        return Program(
            process.name,
            [str(Path(sys.executable).parent / process.command)],
            log=self._layout.log(process.name),
            probe=http_probe(f"{health}/readyz"),
            environment=process.environment,
        )

    async def _enrolled(self) -> None:
        """Wait until auth has written the enrolment of the cluster on this machine."""
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._layout.enrolment.exists():
            if time.monotonic() > deadline:
                raise StartError("auth did not enrol the cluster on this machine")
            await asyncio.sleep(0.05)

    async def _stop(self) -> None:
        tell(
            "\nStopping: sessions, services, then NATS and PostgreSQL. "
            "The next start goes on from here."
        )
        await self._watcher.stop_all(
            ["gateway", wiring.AGENT],
            [wiring.INGRESS, "vnc-proxy", "catalog-sync", "auth"],
            ["session"],
            ["nats", "postgres"],
        )
        self._layout.state.unlink(missing_ok=True)

    async def _keep_house_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self._ingress is not None:
                await asyncio.to_thread(self._renew_certificate, self._ingress)
            for name in self._expected:
                await asyncio.to_thread(trim_log, self._layout.log(name))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _TRIM_EVERY)

    def _renew_certificate(self, ingress: Ingress) -> None:
        """In time, and for however long this runs; the ingress takes up what it finds."""
        try:
            ingress.prepare(self._layout, datetime.now(UTC))
        except OSError as error:
            tell(f"  The ingress' certificate cannot be made anew: {error.strerror}")

    @contextlib.contextmanager
    def _progress(self, what: str, log: Path | None = None) -> Iterator[None]:
        """Tell who is waited for, and where to look if it does not come."""
        began = time.monotonic()
        print(f"  waiting for {what} ...", end="", flush=True)
        try:
            yield
        except StartError as error:
            tell(" failed")
            raise StartError(f"{error}; its log: {log or self._layout.log(what)}") from error
        except BaseException:
            tell("")
            raise
        tell(f" {time.monotonic() - began:.1f} s")

    def _greet(self) -> None:
        tell(
            f"\nStreamSpace runs at {self.url} "
            f"(ready after {time.monotonic() - self._began:.1f} s)."
        )
        password_file = self._layout.admin_password
        if password_file.exists():
            password = password_file.read_text().strip()
            password_file.unlink()
            tell(
                f"Sign in as admin with the password {password}\n"
                "It is shown only now; the account menu changes it."
            )
        elif os.environ.get("STREAMSPACE_ADMIN_PASSWORD"):
            tell("Sign in as admin; the first password was the one in STREAMSPACE_ADMIN_PASSWORD.")
        else:
            tell(
                "Sign in as admin with the password shown at the first start, "
                "or the one you chose since."
            )
        if self._ingress is not None:
            tell(f"Agents of other machines are let in at {self._ingress.tunnel_url}.")
        tell("Ctrl-C stops everything.")

    def _write_state(self) -> None:
        pids = self._watcher.pids
        ready = self._watcher.all_ready() and set(pids) == self._expected
        state = {
            "pid": os.getpid(),
            "url": self.url,
            "ready": ready,
            "processes": pids,
            "health": self._health,
        }
        fresh = self._layout.state.with_suffix(".new")
        fresh.write_text(json.dumps(state, indent=2) + "\n")
        fresh.replace(self._layout.state)


def _built_web_app() -> Path | None:
    """The web app beside this checkout, when it was built."""
    built = Path(__file__).resolve().parents[4] / "services" / "web" / "dist"
    if (built / "index.html").exists():
        return built
    tell("  The web app is not built; only the API is served. `make up` builds it.")
    return None


def _lock(layout: Layout) -> IO[str]:
    """Hold the installation for this process.

    Raises:
        StartError: another launcher has it.
    """
    handle = layout.lock.open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        where = _running(layout).get("url", "another address")
        raise StartError(
            f"StreamSpace already runs here, at {where}. `make down` stops it."
        ) from None
    return handle


def _running(layout: Layout) -> dict[str, object]:
    try:
        return dict(json.loads(layout.state.read_text()))
    except (OSError, ValueError):
        return {}


def up(arguments: argparse.Namespace) -> None:
    layout = Layout(arguments.data.resolve())
    layout.make()
    asked = ingress.from_arguments(arguments)
    with _lock(layout):
        advice = check_machine(arguments.port, arguments.stream_port, asked)
        if advice is not None:
            tell(f"  {advice}")
        launcher = Launcher(
            layout,
            host=arguments.host,
            port=arguments.port,
            stream_port=arguments.stream_port,
            ingress=asked,
        )
        asyncio.run(launcher.run())


def down(arguments: argparse.Namespace) -> None:
    layout = Layout(arguments.data.resolve())
    pid = _running(layout).get("pid")
    if not isinstance(pid, int):
        tell("StreamSpace does not run here.")
        return
    try:
        os.kill(pid, signal.SIGINT)
    except ProcessLookupError:
        layout.state.unlink(missing_ok=True)
        tell("StreamSpace does not run here.")
        return
    tell("Stopping ...")
    while layout.state.exists():
        time.sleep(0.1)


def recover_admin(arguments: argparse.Namespace) -> None:
    """Run the auth service's own recovery on this installation's database."""
    layout = Layout(arguments.data.resolve())
    if not _running(layout).get("ready"):
        raise StartError("StreamSpace does not run here. Start it first: make up")
    port = layout.kept_ports()["postgres"]
    url = wiring.database_url(trust.load(layout), port, "auth")
    done = subprocess.run(
        [sys.executable, "-m", "streamspace_auth.recovery", arguments.name],
        env={**os.environ, "STREAMSPACE_AUTH_DATABASE_URL": url},
        check=False,
    )
    sys.exit(done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(prog="streamspace-embedded", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "recover-admin"])
    parser.add_argument(
        "--data", type=Path, default=Path(".streamspace"), help="data folder (%(default)s)"
    )
    parser.add_argument("--name", default="admin", help="whom to recover (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="web app and API (%(default)s)")
    parser.add_argument("--stream-port", type=int, default=8081, help="streams (%(default)s)")
    ingress.add_arguments(parser)
    arguments = parser.parse_args()
    try:
        {"up": up, "down": down, "recover-admin": recover_admin}[arguments.command](arguments)
    except (StartError, PostgresError, AccountError) as error:
        sys.exit(f"\n{error}")


if __name__ == "__main__":
    main()
