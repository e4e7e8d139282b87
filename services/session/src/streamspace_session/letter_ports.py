"""What the handlers need to keep dead letters and to read histories; the rest is in `ports`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from streamspace_common.contracts.dead_letters import (
    DeadLetter,
    DeadLetterId,
    DeadLetterState,
)
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId


@dataclass(frozen=True)
class LetterQuery:
    """A page of dead letters, newest first."""

    states: tuple[DeadLetterState, ...]
    cluster: ClusterId | None
    session: SessionId | None
    after: tuple[datetime, DeadLetterId] | None
    limit: int


@dataclass(frozen=True)
class Buried:
    """A dead letter as it is kept, with the message itself.

    `is_new` says that it was not known before, `is_moved` that a copy is in the stream.
    """

    letter: DeadLetter
    payload: bytes
    is_new: bool
    is_moved: bool


@dataclass(frozen=True)
class Recorded:
    """One event of a session's history; `position` orders those of one session."""

    position: int
    type: str
    trace_id: str | None
    payload: str


@dataclass(frozen=True)
class StoredMessage:
    """A message of the command stream, as far as its subject tells."""

    cluster: ClusterId
    session: SessionId
    payload: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class DeadCommand:
    """What the server says of a message it will not deliver again.

    `message` is None when a newer one took its place before we could read it.
    """

    stream: str
    sequence: int
    deliveries: int
    consumer: str
    terminated: bool
    reason: str
    message: StoredMessage | None


class DeadLetters(Protocol):
    """Commands that gave up."""

    async def bury(self, letter: DeadLetter, payload: bytes) -> Buried:
        """Keep a letter, or add to the one that is known what this one says."""
        ...

    async def complete(self, sequence: int, deliveries: int, consumer: str) -> Buried | None:
        """Add to the letter from this place in the command stream how it was delivered."""
        ...

    async def unmoved(self, longer: timedelta, limit: int) -> list[Buried]:
        """Those without a copy in the dead letter stream for longer than this, locked."""
        ...

    async def moved(self, letter: DeadLetterId) -> None: ...

    async def lock(self, letter: DeadLetterId) -> Buried | None: ...

    async def session_of(self, letter: DeadLetterId) -> SessionId | None: ...

    async def page(self, query: LetterQuery) -> list[DeadLetter]: ...

    async def settle(
        self,
        letter: DeadLetterId,
        state: DeadLetterState,
        actor: Actor,
        at: datetime,
        retried_as: CommandId | None = None,
    ) -> DeadLetter: ...

    async def answer(
        self, command: CommandId, before_attempt: int, actor: Actor, at: datetime
    ) -> None:
        """Settle open letters of a command's earlier attempts: it was sent again."""
        ...

    async def origin(
        self, cluster: ClusterId, session: SessionId, generation: int, attempt: int
    ) -> int | None:
        """Where the command stream keeps this command, while that is its session's newest."""
        ...

    async def count_open(self) -> int: ...


class History(Protocol):
    """What was told of sessions."""

    async def page(self, session: SessionId, after: int, limit: int) -> list[Recorded]: ...

    async def last_before(
        self, session: SessionId, at: datetime, types: Sequence[str]
    ) -> Recorded | None: ...
