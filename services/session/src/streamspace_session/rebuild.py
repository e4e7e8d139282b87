"""Rebuild sessions, commands and history from the EVENTS stream, and compare with the live ones.

    python -m streamspace_session.rebuild --into rebuilt_1

It reads the stream from its start into a fresh schema of the session database, while
everything runs on. Ends with 0 when both are the same, with 1 and a line for each
difference when they are not, with 2 when it could not tell.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import uvloop

from streamspace_common.bus import Bus, BusError, RawMessage, StartAt
from streamspace_common.contracts.events import SESSION_HISTORY
from streamspace_common.contracts.headers import ID, SUBJECT, TIME, TRACE_PARENT, TYPE
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.contracts.subjects import Aggregate, core_events
from streamspace_common.runtime import logging
from streamspace_common.runtime.settings import load
from streamspace_common.runtime.tracing import trace_id_of
from streamspace_common.store.engine import Database
from streamspace_session.domain.rebuilding import HistoryLine, Projection, StoredEvent
from streamspace_session.settings import SessionSettings
from streamspace_session.store.rebuilding import CannotRebuildError, Difference, Rebuilding

BATCH = 5000
_ALL = core_events(Aggregate.SESSION)
_KINDS = frozenset(event.KIND.encode() for event in SESSION_HISTORY)
"""Not all that is told of sessions: who watches them is told every few seconds.

They are picked here and not by the server: a consumer with several filters costs it 146 us for
each message that matches, against 8 us, as it looks through all subjects of a block each time
(nats-server 2.15, blocks of 4,000 messages with as many subjects).
"""
_SHOWN = 100
_TELL_EVERY = 5.0
_CONNECT_PATIENCE = 15.0


@dataclass(frozen=True)
class Report:
    """What a rebuilding found; times in seconds."""

    events: int
    sessions: int
    commands: int
    rows_that_differ: int
    differences: list[Difference]
    rebuilt_in: float
    compared_in: float

    def as_data(self) -> dict[str, object]:
        """For programs, in the spelling of the API."""
        return {
            "same": not self.rows_that_differ,
            "events": self.events,
            "sessions": self.sessions,
            "commands": self.commands,
            "rowsThatDiffer": self.rows_that_differ,
            "differences": [asdict(one) for one in self.differences],
            "rebuiltInSeconds": round(self.rebuilt_in, 3),
            "comparedInSeconds": round(self.compared_in, 3),
        }

    def __str__(self) -> str:
        rate = self.events / self.rebuilt_in if self.rebuilt_in else 0
        return (
            f"{self.events} events gave {self.sessions} sessions and {self.commands} commands "
            f"in {self.rebuilt_in:.1f} s ({rate:.0f}/s), compared in {self.compared_in:.1f} s: "
            + (
                "the same as live."
                if not self.rows_that_differ
                else f"{self.rows_that_differ} rows differ."
            )
        )


async def rebuild(
    bus: Bus,
    database: Database,
    schema: str,
    *,
    replace: bool = False,
    keep: bool = True,
    tell: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Read the stream into `schema` and compare; `tell` is given a line now and then.

    Raises:
        CannotRebuildError: the schema cannot be made, or events are not published.
        BusError: the stream cannot be read.
    """
    began = time.monotonic()
    with _no_collections():
        progress = _Progress(tell, began)
        return await _rebuild(bus, database, schema, progress, replace=replace, keep=keep)


@contextmanager
def _no_collections() -> Iterator[None]:
    """What is read here holds no cycles; looking for them again and again costs a third."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Progress:
    """Tells how far it is, every few seconds: a million events take a while."""

    def __init__(self, tell: Callable[[str], None], began: float) -> None:
        self._tell = tell
        self.began = began
        self._next = began + _TELL_EVERY

    def events(self, count: int, sequence: int, last: int) -> None:
        """So many of them were read, up to this sequence of the stream's `last`."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _TELL_EVERY
            share = 100 * sequence // max(last, 1)
            self._tell(f"{count:,} events read ({share} % of the stream), {self._seconds(now)}")

    def step(self, what: str) -> None:
        self._tell(f"{what}, {self._seconds(time.monotonic())}")

    def _seconds(self, now: float) -> str:
        return f"{now - self.began:.0f} s"


async def _rebuild(
    bus: Bus, database: Database, schema: str, progress: _Progress, *, replace: bool, keep: bool
) -> Report:
    work = await Rebuilding.begin(database, schema, replace=replace)
    kept = False
    try:
        await work.wait_for_outbox(database)
        _, last = await bus.stream_bounds(EVENTS.name)
        projection = Projection()

        async def history() -> AsyncGenerator[list[HistoryLine]]:
            async with aclosing(_batches(bus, work, last)) as batches:
                async for sequence, batch in batches:
                    yield projection.fold(batch)
                    progress.events(projection.events, sequence, last)

        async with aclosing(history()) as lines:
            await work.keep(lines)
        progress.step(f"{projection.events:,} events are read and kept, sessions come next")
        await work.finish(projection)
        progress.step("all is rebuilt, the comparison comes next")
        rebuilt = time.monotonic()
        differences, total = await work.compare(begins=await _beginning(bus), most=_SHOWN)
        lost = await work.never_kept(database)
        differences, total = [*differences, *lost][:_SHOWN], total + len(lost)
        kept = keep
    finally:
        await work.close(keep=kept)
    return Report(
        events=projection.events,
        sessions=len(projection.sessions),
        commands=len(projection.commands),
        rows_that_differ=total,
        differences=differences,
        rebuilt_in=rebuilt - progress.began,
        compared_in=time.monotonic() - rebuilt,
    )


async def _beginning(bus: Bus) -> datetime | None:
    """Since when the stream holds everything; None when it lost nothing.

    Asked after the reading: what the stream drops meanwhile was found of one kind of events
    and missed of another.
    """
    first, _ = await bus.stream_bounds(EVENTS.name)
    if first <= 1:
        return None
    oldest = await bus.next_message(EVENTS.name, EVENTS.subjects[0], first)
    return datetime.now(UTC) if oldest is None else oldest.time


async def _batches(
    bus: Bus, work: Rebuilding, last: int
) -> AsyncGenerator[tuple[int, list[StoredEvent]]]:
    """All events of sessions up to the stream's sequence `last`, many at a time.

    Each time with the place in the stream that they reach to.
    """
    if await bus.next_message(EVENTS.name, _ALL, 1) is None:
        return
    batch: list[StoredEvent] = []
    read = 0
    async with aclosing(bus.tail_raw(EVENTS.name, [_ALL], start=StartAt.all())) as runs:
        async for run in runs:
            events = map(_stored, filter(_is_history, _until(run, last)))
            batch.extend(event for event in events if work.knows(event.id, event.at))
            if run[-1].pending == 0 or run[-1].sequence >= last:
                break
            read += len(run)
            if read >= BATCH:
                yield run[-1].sequence, batch
                batch, read = [], 0
    if batch:
        yield last, batch


def _is_history(message: RawMessage) -> bool:
    return message.subject.rpartition(b".")[2] in _KINDS


def _until(run: list[RawMessage], last: int) -> list[RawMessage]:
    if run[-1].sequence <= last:
        return run
    return [message for message in run if message.sequence <= last]


def _stored(message: RawMessage) -> StoredEvent:
    headers = message.plain_headers()
    return StoredEvent(
        headers[ID],
        headers[TYPE],
        headers[SUBJECT],
        datetime.fromisoformat(headers[TIME]),
        trace_id_of(headers.get(TRACE_PARENT)),
        message.payload,
    )


async def run(
    settings: SessionSettings, schema: str, *, replace: bool, keep: bool, as_json: bool = False
) -> int:
    """Rebuild, tell, and return the exit code."""
    try:
        bus = await asyncio.wait_for(
            Bus.connect(
                settings.nats_url,
                name="rebuild",
                credentials=settings.nats_credentials,
                ca_file=settings.nats_ca_file,
                inbox=SERVICES["session"].inbox,
            ),
            _CONNECT_PATIENCE,
        )
    except TimeoutError:
        return _cannot(f"NATS does not answer at {settings.nats_url}.")
    database = Database.connect(settings.database_url.get_secret_value(), application="rebuild")
    try:
        report = await rebuild(bus, database, schema, replace=replace, keep=keep, tell=_note)
    except (CannotRebuildError, BusError, ProblemError, OSError) as error:
        return _cannot(str(error))
    finally:
        await bus.close()
        await database.dispose()
    if as_json:
        sys.stdout.write(json.dumps(report.as_data(), indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in (*report.differences, report)))
    return 1 if report.rows_that_differ else 0


def _note(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _cannot(why: str) -> int:
    sys.stderr.write(f"{why}\n")
    return 2


def main(arguments: list[str] | None = None) -> int:
    """The command; settings come from the environment, as the service's do."""
    parser = argparse.ArgumentParser(
        prog="python -m streamspace_session.rebuild", description=__doc__
    )
    parser.add_argument("--into", required=True, metavar="SCHEMA", help="a schema to be made")
    parser.add_argument("--replace", action="store_true", help="drop the schema if it exists")
    parser.add_argument(
        "--discard", action="store_true", help="compare only; leave no schema behind"
    )
    parser.add_argument("--json", action="store_true", help="tell the result in JSON")
    given = parser.parse_args(arguments)
    settings = load(SessionSettings)
    logging.configure("rebuild", "WARNING", settings.log_format)
    return uvloop.run(
        run(
            settings,
            given.into,
            replace=given.replace,
            keep=not given.discard,
            as_json=given.json,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
