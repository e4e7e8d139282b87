"""Rebuild sessions, commands and history from the EVENTS stream, and compare with the live ones.

    python -m streamspace_session.rebuild --into rebuilt_1

It reads the stream from its start into a fresh schema of the session database, while
everything runs on. Ends with 0 when both are the same, with 1 and a line for each
difference when they are not, with 2 when it could not tell.
"""

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import datetime

import uvloop

from streamspace_common.bus import Bus, BusError, StartAt, StreamMessage
from streamspace_common.contracts.headers import ID, SUBJECT, TIME, TRACE_PARENT
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.contracts.subjects import Aggregate, core_events
from streamspace_common.runtime import logging
from streamspace_common.runtime.settings import load
from streamspace_common.runtime.tracing import trace_id_of
from streamspace_common.store.engine import Database
from streamspace_session.domain.rebuilding import Projection, StoredEvent
from streamspace_session.settings import SessionSettings
from streamspace_session.store.rebuilding import CannotRebuildError, Difference, Rebuilding

BATCH = 5000
_SHOWN = 100
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
    bus: Bus, database: Database, schema: str, *, replace: bool = False, keep: bool = True
) -> Report:
    """Read the stream into `schema` and compare.

    Raises:
        CannotRebuildError: the schema cannot be made, or events are not published.
        BusError: the stream cannot be read.
    """
    began = time.monotonic()
    with _no_collections():
        return await _rebuild(bus, database, schema, began, replace=replace, keep=keep)


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


async def _rebuild(
    bus: Bus, database: Database, schema: str, began: float, *, replace: bool, keep: bool
) -> Report:
    work = await Rebuilding.begin(database, schema, replace=replace)
    kept = False
    try:
        await work.wait_for_outbox(database)
        first, last = await bus.stream_bounds(EVENTS.name)
        projection = Projection()
        writing: asyncio.Task[None] | None = None
        async with aclosing(_batches(bus, work, last)) as batches:
            async for batch in batches:
                lines = projection.fold(batch)
                # The database writes one batch while the next one comes in.
                if writing is not None:
                    await writing
                writing = asyncio.create_task(work.keep(lines), name="copy")
        if writing is not None:
            await writing
        await work.finish(projection)
        rebuilt = time.monotonic()
        differences, total = await work.compare(trimmed=first > 1, most=_SHOWN)
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
        rebuilt_in=rebuilt - began,
        compared_in=time.monotonic() - rebuilt,
    )


async def _batches(bus: Bus, work: Rebuilding, last: int) -> AsyncGenerator[list[StoredEvent]]:
    """All events of sessions up to the stream's sequence `last`, many at a time."""
    batch: list[StoredEvent] = []
    filter_ = core_events(Aggregate.SESSION)
    if await bus.next_message(EVENTS.name, filter_, 1) is None:
        return
    async with aclosing(bus.tail(EVENTS.name, [filter_], start=StartAt.all())) as messages:
        async for message in messages:
            if message.sequence > last:
                break
            event = _stored(message)
            if work.knows(event.id, event.at):
                batch.append(event)
            if len(batch) >= BATCH:
                yield batch
                batch = []
            if message.pending == 0:
                break
    if batch:
        yield batch


def _stored(message: StreamMessage) -> StoredEvent:
    headers = message.headers
    return StoredEvent(
        headers[ID],
        message.type,
        headers[SUBJECT],
        datetime.fromisoformat(headers[TIME]),
        trace_id_of(headers.get(TRACE_PARENT)),
        message.payload,
    )


async def run(settings: SessionSettings, schema: str, *, replace: bool, keep: bool) -> int:
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
        report = await rebuild(bus, database, schema, replace=replace, keep=keep)
    except (CannotRebuildError, BusError, ProblemError, OSError) as error:
        return _cannot(str(error))
    finally:
        await bus.close()
        await database.dispose()
    told = [*report.differences, report]
    sys.stdout.write("".join(f"{line}\n" for line in told))
    return 1 if report.rows_that_differ else 0


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
    given = parser.parse_args(arguments)
    settings = load(SessionSettings)
    logging.configure("rebuild", "WARNING", settings.log_format)
    return uvloop.run(run(settings, given.into, replace=given.replace, keep=not given.discard))


if __name__ == "__main__":
    sys.exit(main())
