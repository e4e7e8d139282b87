"""A stream in memory with the semantics the outbox relies on, and faults on demand."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamspace_common.bus.errors import BusUnavailableError, WrongLastSequenceError
from streamspace_common.bus.publishing import Stored
from streamspace_common.contracts import headers as names
from streamspace_common.contracts import subjects
from streamspace_common.contracts.ids import ClusterId, SessionId


@dataclass(frozen=True)
class StoredMessage:
    subject: str
    payload: bytes
    headers: Mapping[str, str]
    sequence: int


@dataclass
class MemoryPublisher:
    """`store.outbox.Publisher`: last sequence per subject, and de-duplication by message id."""

    messages: list[StoredMessage] = field(default_factory=list)
    connected: bool = True
    confirm: bool = True
    """False: messages are stored, but nobody says so."""
    attempts: list[str] = field(default_factory=list)
    delay: float = 0.0
    _known: dict[str, int] = field(default_factory=dict)

    @property
    def subjects(self) -> list[str]:
        return [message.subject for message in self.messages]

    @property
    def ids(self) -> list[str]:
        return [message.headers[names.MESSAGE_ID] for message in self.messages]

    def forget_ids(self) -> None:
        """As a server does when it restarts."""
        self._known.clear()

    async def publish(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str],
        *,
        expected_last_subject_sequence: int | None = None,
    ) -> Stored:
        self.attempts.append(headers[names.MESSAGE_ID])
        await asyncio.sleep(self.delay)
        if not self.connected:
            raise BusUnavailableError("not connected")
        stored = self._store(subject, payload, headers, expected_last_subject_sequence)
        if not self.confirm:
            raise BusUnavailableError("no confirmation in time")
        return stored

    async def newest_command(self, cluster: ClusterId, session: SessionId) -> StoredMessage | None:
        return self._last(subjects.command(cluster, session))

    def _store(
        self, subject: str, payload: bytes, headers: Mapping[str, str], expected: int | None
    ) -> Stored:
        id_ = headers[names.MESSAGE_ID]
        if id_ in self._known:
            return Stored("MEMORY", self._known[id_], duplicate=True)
        last = self._last(subject)
        if expected is not None and expected != (last.sequence if last else 0):
            raise WrongLastSequenceError(subject, expected, last.sequence if last else 0)
        sequence = len(self.messages) + 1
        self.messages.append(StoredMessage(subject, payload, headers, sequence))
        self._known[id_] = sequence
        return Stored("MEMORY", sequence, duplicate=False)

    def _last(self, subject: str) -> StoredMessage | None:
        return next((m for m in reversed(self.messages) if m.subject == subject), None)
