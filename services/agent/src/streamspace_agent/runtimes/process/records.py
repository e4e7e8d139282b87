"""What is remembered of a session, one JSON file each, replaced as a whole.

The record is written before a step that could be forgotten (processes that run, a
death that was seen), so that an agent killed at any instant finds out at its next start
what it has to take over, to clean up, or to tell. Power cuts need no care here: they end
the processes too.
"""

import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from streamspace_agent.domain import Death, Observed
from streamspace_agent.runtimes.process.processes import ProcessIdentity
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Reason, SessionSpec
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)


class ProcessRecord(BaseModel):
    """A process of a session. The session dies with a `vital` one."""

    model_config = ConfigDict(frozen=True)

    role: str
    pid: int
    started: int
    vital: bool = True

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.started)


class SessionRecord(BaseModel):
    """One session as it was when it was last written.

    `suspended` marks a running session whose processes were ended together with the
    agent; it is started again with the next one. `woken` marks a start from hibernation,
    so that one that was cut short ends in hibernation again. `http_port` is the loopback
    port a web client is served on.
    """

    model_config = ConfigDict(frozen=True)

    session_id: SessionId
    generation: int
    state: ResourceState
    spec: SessionSpec
    incarnation: str = ""
    boot_id: str = ""
    display: int | None = None
    http_port: int | None = None
    processes: tuple[ProcessRecord, ...] = ()
    suspended: bool = False
    woken: bool = False
    death_message: str | None = None
    death_reason: Reason = Reason.DESKTOP_DIED

    def observed(self, generation: int) -> Observed:
        """What it says, under the generation that the session's fence says."""
        death = None
        if self.state is ResourceState.DEAD:
            death = Death(self.incarnation, self.death_message or "", self.death_reason)
        return Observed(self.session_id, max(generation, self.generation), self.state, death)


class Records:
    """The records in one directory, shared by the agents that use it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, session: SessionId) -> SessionRecord | None:
        path = self._path(session)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return SessionRecord.model_validate_json(content)
        except ValidationError as error:
            # Set aside, not deleted: somebody may want to know how it came about.
            log.warning("session record unreadable, set aside", path=str(path), error=str(error))
            path.replace(path.with_suffix(".unreadable"))
            return None

    def save(self, record: SessionRecord) -> None:
        path = self._path(record.session_id)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_bytes(record.model_dump_json().encode())
        draft.replace(path)

    def remove(self, session: SessionId) -> None:
        self._path(session).unlink(missing_ok=True)

    def sessions(self) -> list[SessionId]:
        return sorted(SessionId(path.stem) for path in self._directory.glob("[a-z0-9]*.json"))

    def all(self) -> list[SessionRecord]:
        found = (self.load(session) for session in self.sessions())
        return [record for record in found if record is not None]

    def age(self, session: SessionId) -> float:
        """Seconds since the record was written; 0 where there is none."""
        try:
            return time.time() - self._path(session).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def stamp(self) -> int:
        """Changes whenever any record does: one cheap look instead of reading them all."""
        return self._directory.stat().st_mtime_ns

    def _path(self, session: SessionId) -> Path:
        return self._directory / f"{session}.json"
