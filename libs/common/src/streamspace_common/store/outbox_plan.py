"""What to publish of a batch of outbox rows, and in which order: decided without effects.

Rows about one thing (a session, a template) go one after another; different things
go side by side. Of the commands of one session only the newest is worth sending.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """One outbox row; of a command also what is known of the last one that was stored."""

    id: int
    msg_id: str
    subject: str
    headers: dict[str, str]
    payload: bytes
    key: str | None = None
    generation: int = 0
    attempt: int = 0
    expected_sequence: int = 0
    stored_rank: tuple[int, int] = (0, 0)

    @property
    def lane(self) -> str:
        """What it is about: entries of one lane keep their order.

        `evt.core.session.<id>` of an event, the whole subject of a command.
        """
        if self.key is not None:
            return self.subject
        return ".".join(self.subject.split(".")[:4])

    @property
    def rank(self) -> tuple[int, int]:
        """Which of two commands of a session is the newer one."""
        return self.generation, self.attempt


@dataclass(frozen=True)
class SupersededCommand:
    """A command that was never sent, because a newer one of its session existed."""

    message_id: str
    session_id: str
    generation: int
    by_generation: int


@dataclass(frozen=True)
class Plan:
    """What to do with a batch."""

    lanes: dict[str, list[Entry]]
    superseded: list[SupersededCommand] = field(default_factory=list)
    unsent: list[int] = field(default_factory=list)
    """Ids of rows to delete without publishing."""


def plan(entries: Iterable[Entry]) -> Plan:
    """Sort a batch, ordered by id, into lanes, with only the newest command per session.

    A command is left out when a newer one is in the batch, or was stored before.
    """
    batch = list(entries)
    newest = _newest(batch)
    lanes: dict[str, list[Entry]] = {}
    superseded: list[SupersededCommand] = []
    unsent: list[int] = []
    for entry in batch:
        if entry.key is None:
            lanes.setdefault(entry.lane, []).append(entry)
            continue
        winner = newest[entry.key]
        if winner is entry and entry.rank > entry.stored_rank:
            lanes.setdefault(entry.lane, []).append(entry)
            continue
        unsent.append(entry.id)
        by_generation = max(winner.generation, entry.stored_rank[0])
        if entry.generation < by_generation:
            superseded.append(superseded_by(entry, by_generation))
    return Plan(lanes, superseded, unsent)


def superseded_by(entry: Entry, generation: int) -> SupersededCommand:
    return SupersededCommand(entry.msg_id, entry.key or "", entry.generation, generation)


def _newest(batch: Sequence[Entry]) -> dict[str, Entry]:
    newest: dict[str, Entry] = {}
    for entry in batch:
        if entry.key is None:
            continue
        known = newest.get(entry.key)
        if known is None or entry.rank >= known.rank:
            newest[entry.key] = entry
    return newest
