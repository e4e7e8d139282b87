"""Publishes one batch of the outbox: lanes side by side, each lane in order.

A lane whose message could not be published waits, longer each time; the others go on.

Commands are published with the sequence their subject is expected to have. Message
ids alone are not enough: a stream forgets the ids of replaced messages when its
server restarts, and a late repetition of an old command would replace a newer one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from prometheus_client import Counter
from pydantic import ValidationError

from streamspace_common.bus.errors import (
    BusError,
    BusUnavailableError,
    MessageTooLargeError,
    WrongLastSequenceError,
)
from streamspace_common.contracts import subjects
from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.runtime.logging import get_logger
from streamspace_common.store.outbox_plan import Entry, SupersededCommand, plan, superseded_by

log = get_logger(__name__)

_RETRY: Final = (0.1, 2.0)
_COMPARISONS: Final = 3
_SHORTEST_WAIT: Final = 0.01

_WAITS: Final = Counter(
    "streamspace_outbox_retries_total", "Times a message could not be published and had to wait."
)

_Rank = tuple[int, int]
"""Generation and attempt of a command."""


class Confirmation(Protocol):
    """What a stream says of a stored message."""

    @property
    def sequence(self) -> int: ...


class StreamedCommand(Protocol):
    """A command as its stream holds it."""

    @property
    def sequence(self) -> int: ...
    @property
    def payload(self) -> bytes: ...


class Publisher(Protocol):
    """The part of the bus that the relay needs."""

    async def publish(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str],
        *,
        expected_last_subject_sequence: int | None = None,
    ) -> Confirmation:
        """Store a message.

        Raises:
            WrongLastSequenceError: the subject's last message is another one.
            BusUnavailableError: nobody confirmed.
        """
        ...

    async def newest_command(
        self, cluster: ClusterId, session: SessionId
    ) -> StreamedCommand | None:
        """The session's command as the stream holds it now."""
        ...


class _RankedCommand(Contract):
    """What tells which of two commands is newer; the rest of them is not read here."""

    generation: int
    attempt: int = 1


class Outcome:
    """What came of a batch; filled by its lanes side by side."""

    def __init__(self) -> None:
        self.done: list[int] = []
        """Ids of rows that need no more."""
        self.stored: dict[str, tuple[int, _Rank]] = {}
        """Subject -> where its newest command is, and which one that is."""
        self.superseded: list[SupersededCommand] = []

    def columns(self) -> tuple[list[str], list[int], list[int], list[int]]:
        """`stored` as the columns of `command_sequences`."""
        found = self.stored.values()
        return (
            list(self.stored),
            [sequence for sequence, _ in found],
            [generation for _, (generation, _) in found],
            [attempt for _, (_, attempt) in found],
        )


class _Lane:
    """The waiting time of a lane whose last entry could not be published."""

    def __init__(self) -> None:
        self.failures = 0
        self.retry_at = 0.0

    def failed(self, now: float) -> float:
        first, limit = _RETRY
        self.failures += 1
        delay = min(first * 2.0 ** min(self.failures - 1, 20), limit)
        self.retry_at = now + delay
        return delay


class BatchPublisher:
    """Remembers from batch to batch which lanes have to wait."""

    def __init__(self, bus: Publisher) -> None:
        self._bus = bus
        self._waiting: dict[str, _Lane] = {}

    def next_retry(self) -> float:
        """Seconds until a waiting lane may be tried again; infinite when none waits."""
        if not self._waiting:
            return float("inf")
        now = asyncio.get_running_loop().time()
        due = min(lane.retry_at for lane in self._waiting.values())
        return max(due - now, _SHORTEST_WAIT)

    async def publish(self, batch: Sequence[Entry]) -> Outcome:
        """Publish what a plan leaves of the batch and what does not have to wait."""
        todo = plan(batch)
        outcome = Outcome()
        outcome.superseded.extend(todo.superseded)
        outcome.done.extend(todo.unsent)
        # What is no longer there has nothing to wait for.
        self._waiting = {name: lane for name, lane in self._waiting.items() if name in todo.lanes}
        now = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for name, entries in todo.lanes.items():
                lane = self._waiting.get(name)
                if lane is None or lane.retry_at <= now:
                    group.create_task(self._publish_lane(entries, outcome))
        return outcome

    async def _publish_lane(self, entries: Sequence[Entry], outcome: Outcome) -> None:
        name = entries[0].lane
        for entry in entries:
            try:
                await self._publish_entry(entry, outcome)
            except MessageTooLargeError as error:
                # Waiting does not make it smaller, and would hold back what follows.
                log.error(  # noqa: TRY400 - the reason says it all
                    "message dropped",
                    subject=entry.subject,
                    message_id=entry.msg_id,
                    reason=str(error),
                )
            except BusError as error:
                lane = self._waiting.setdefault(name, _Lane())
                _WAITS.inc()
                delay = lane.failed(asyncio.get_running_loop().time())
                # An absent bus is one incident, told by the bus; the rest is worth a line.
                if not isinstance(error, BusUnavailableError) or lane.failures == 1:
                    log.warning(
                        "message waits in the outbox",
                        subject=entry.subject,
                        message_id=entry.msg_id,
                        reason=str(error),
                        retry_in=delay,
                    )
                return
            outcome.done.append(entry.id)
            self._waiting.pop(name, None)

    async def _publish_entry(self, entry: Entry, outcome: Outcome) -> None:
        if entry.key is None:
            await self._bus.publish(entry.subject, entry.payload, entry.headers)
            return
        expected = entry.expected_sequence
        for _ in range(_COMPARISONS):
            try:
                stored = await self._bus.publish(
                    entry.subject,
                    entry.payload,
                    entry.headers,
                    expected_last_subject_sequence=expected,
                )
            except WrongLastSequenceError:
                known = await self._known_command(entry)
                if known is not None and known[0] >= entry.rank:
                    outcome.stored[entry.subject] = (known[1], known[0])
                    if known[0][0] > entry.generation:
                        outcome.superseded.append(superseded_by(entry, known[0][0]))
                    return
                expected = known[1] if known is not None else 0
            else:
                outcome.stored[entry.subject] = (stored.sequence, entry.rank)
                return
        raise BusError("the subject's last sequence changes all the time")

    async def _known_command(self, entry: Entry) -> tuple[_Rank, int] | None:
        """Rank and sequence of the command that the stream holds for this subject."""
        parsed = subjects.parse_command(entry.subject)
        held = await self._bus.newest_command(parsed.cluster, parsed.session)
        if held is None:
            return None
        try:
            command = _RankedCommand.from_json(held.payload)
        except ValidationError:
            # Whatever it is, it is no command of ours; ours may take its place.
            return (0, 0), held.sequence
        return (command.generation, command.attempt), held.sequence
