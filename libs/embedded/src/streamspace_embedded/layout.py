"""Where everything of one installation is kept, and the ports it keeps using."""

import json
from dataclasses import dataclass
from pathlib import Path

from streamspace_embedded.ports import free_port, is_free

LOG_LIMIT = 20 * 1024 * 1024
"""Bytes of one process's log; beyond it the older half of them goes to `<name>.log.1`."""


@dataclass(frozen=True)
class Layout:
    """The data folder, `.streamspace/` by default."""

    data: Path

    @property
    def lock(self) -> Path:
        return self.data / "lock"

    @property
    def state(self) -> Path:
        """What runs now: read by `down`, by tests and by people."""
        return self.data / "run.json"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def secrets(self) -> Path:
        return self.data / "secrets"

    @property
    def postgres(self) -> Path:
        return self.data / "postgres"

    @property
    def nats(self) -> Path:
        return self.data / "nats"

    @property
    def agent(self) -> Path:
        return self.data / "agent"

    @property
    def catalogs(self) -> Path:
        return self.data / "catalogs"

    @property
    def enrolment(self) -> Path:
        return self.secrets / "agent-local.json"

    @property
    def admin_password(self) -> Path:
        return self.secrets / "admin-password"

    @property
    def bus_authority(self) -> Path:
        return self.secrets / "bus-authority.json"

    @property
    def bus_accounts(self) -> Path:
        return self.secrets / "bus-accounts.creds"

    def credentials(self, service: str) -> Path:
        return self.secrets / f"{service}.creds"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def make(self) -> None:
        """Create the folders; only this user may look inside."""
        self.data.mkdir(parents=True, exist_ok=True)
        for folder in (self.logs, self.secrets, self.nats, self.agent, self.catalogs):
            folder.mkdir(mode=0o700, exist_ok=True)

    def inner_ports(self, *names: str) -> dict[str, int]:
        """The servers' own ports: the same at each start, unless somebody took one.

        Agents that were enrolled by hand know NATS' port, so it must not wander.
        """
        kept = self.kept_ports()
        ports = {
            name: kept[name] if name in kept and is_free(kept[name]) else free_port()
            for name in names
        }
        self._ports.write_text(json.dumps(ports, indent=2) + "\n")
        return ports

    def kept_ports(self) -> dict[str, int]:
        """The ports of the last start, which a running installation uses."""
        return dict(json.loads(self._ports.read_text())) if self._ports.exists() else {}

    @property
    def _ports(self) -> Path:
        return self.data / "ports.json"


def trim_log(path: Path) -> None:
    """Keep a log bounded; its writer appends, so the file may be cut under it."""
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        older = path.with_suffix(".log.1")
        older.write_bytes(path.read_bytes())
        with path.open("r+b") as log:
            log.truncate(0)
