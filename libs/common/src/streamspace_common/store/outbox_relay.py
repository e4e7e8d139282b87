"""Publishes what the outbox holds: at least once, in order, by one process at a time.

Several replicas of a service run a relay; an advisory lock lets one of them be
active. The lock, the listening, the reading and the deleting share one connection:
whoever loses it has lost the lock too and can no longer delete what another relay
now publishes. A relay that dies between publishing and deleting leaves rows that
are published again under the same message id.

A holder that is gone without its connection's end being seen would keep the lock for ever.
An active relay therefore asks its server something every few seconds, whatever it waits
for, and whoever stands by ends the connection of a holder that has not for long.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import asyncpg
from prometheus_client import Counter, Gauge

from streamspace_common.runtime.logging import get_logger
from streamspace_common.store.engine import Database
from streamspace_common.store.outbox_plan import Entry, SupersededCommand
from streamspace_common.store.outbox_publish import BatchPublisher, Outcome, Publisher
from streamspace_common.store.silence import NO_ANSWER, SERVER_SIDE, keep_alive
from streamspace_common.store.tables import OUTBOX_CHANNEL

log = get_logger(__name__)

BATCH: Final = 500
"""Rows read at once. Measured: 500 publish 16,000 a second, 50 half of that."""

_POLL: Final = 1.0
"""Seconds between looks when nobody notifies: covers a lost notification."""
_STANDBY: Final = 1.0
"""Seconds between tries for the lock."""
_RECONNECT: Final = (0.2, 5.0)
_SERVER_SETTINGS: Final = {
    "application_name": "outbox-relay",
    "timezone": "UTC",
    **SERVER_SIDE,
}
_SIGN_OF_LIFE: Final = 3.0
"""Seconds between statements while a batch is published."""
_SILENT: Final = timedelta(seconds=15)
"""Since a holder's last statement began or ended: above `NO_ANSWER`, the longest it may take."""
_PRUNE_EVERY: Final = 3600.0
_PRUNE_AGE: Final = timedelta(days=8)
"""Longer than COMMANDS keeps messages; a missing row only costs a comparison."""

_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended('streamspace:outbox', 0))"
_EVICT: Final = """
SELECT pg_terminate_backend(holder.pid)
FROM (SELECT hashtextextended('streamspace:outbox', 0) AS number) AS key
JOIN pg_locks AS held ON held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
  AND held.classid::bigint = (key.number >> 32) & 4294967295
  AND held.objid::bigint = key.number & 4294967295
JOIN pg_stat_activity AS holder
  ON holder.pid = held.pid AND holder.datid = held.database AND holder.datname = current_database()
WHERE holder.state_change < clock_timestamp() - $1::interval
"""
_READ: Final = """
SELECT o.id, o.msg_id, o.subject, o.headers, o.payload, o.key, o.generation, o.attempt,
       s.sequence, s.generation AS stored_generation, s.attempt AS stored_attempt
FROM outbox o LEFT JOIN command_sequences s ON o.key IS NOT NULL AND s.subject = o.subject
ORDER BY o.id LIMIT $1
"""
_SETTLE: Final = """
WITH gone AS (DELETE FROM outbox WHERE id = ANY($1::bigint[]))
INSERT INTO command_sequences (subject, sequence, generation, attempt)
SELECT * FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
ON CONFLICT (subject) DO UPDATE SET
  sequence = excluded.sequence, generation = excluded.generation, attempt = excluded.attempt,
  stored_at = clock_timestamp()
"""
_MEASURE: Final = """
SELECT count(*) AS waiting,
       coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS age
FROM outbox
"""
_MEASURE_EVERY: Final = 5.0
_PRUNE: Final = "DELETE FROM command_sequences WHERE stored_at < clock_timestamp() - $1::interval"

_PUBLISHED: Final = Counter(
    "streamspace_outbox_settled_total", "Outbox rows that were published, or needed it no more."
)
_ACTIVE: Final = Gauge(
    "streamspace_outbox_active", "1 where this process is the one that publishes."
)

_BACKLOG: Final = Gauge(
    "streamspace_outbox_backlog_messages", "Messages that were committed and wait to be published."
)
_AGE: Final = Gauge(
    "streamspace_outbox_age_seconds", "Age of the oldest of them; 0 when there is none."
)

_CONNECTION_ERRORS: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What the driver says when the server's goodbye is read just before a statement is sent.
    asyncpg.InternalClientError,
)


class OutboxRelay:
    """Runs for ever under the supervisor; `wake` it after a commit.

    Args:
        database: whose outbox; local commits wake the relay by themselves.
        bus: where to.
        on_commands_superseded: told of commands that were dropped for newer ones,
            before their rows go; may be told twice.
    """

    def __init__(
        self,
        database: Database,
        bus: Publisher,
        *,
        on_commands_superseded: Callable[[Sequence[SupersededCommand]], Awaitable[None]]
        | None = None,
    ) -> None:
        self._dsn = database.engine.url.set(drivername="postgresql").render_as_string(
            hide_password=False
        )
        self._protection = database.protection
        self._publisher = BatchPublisher(bus)
        self._on_superseded = on_commands_superseded
        self._woken = asyncio.Event()
        self._active = False
        database.on_commit(self.wake)

    @property
    def active(self) -> bool:
        """Whether this process is the one that publishes."""
        return self._active

    def wake(self) -> None:
        """There may be something to publish."""
        self._woken.set()

    async def run(self) -> None:
        """Publish for ever; reconnects to PostgreSQL and waits for the bus by itself."""
        first, limit = _RECONNECT
        delay = first
        while True:
            try:
                await self._serve_one_connection()
                delay = first
            except _CONNECTION_ERRORS as error:
                log.warning("outbox has no database", reason=_reason(error), retry_in=delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, limit)

    async def _serve_one_connection(self) -> None:
        connection = await asyncpg.connect(
            self._dsn,
            **self._protection,
            timeout=5,
            command_timeout=NO_ANSWER,
            server_settings=_SERVER_SETTINGS,
        )
        try:
            keep_alive(connection)
            connection.add_termination_listener(lambda _connection: self.wake())
            await self._become_active(connection)
            await connection.add_listener(OUTBOX_CHANNEL, lambda *_: self.wake())
            self._active = True
            _ACTIVE.set(1)
            log.info("outbox relay is active")
            await self._relay(connection)
        finally:
            self._active = False
            # Whoever is active now knows what waits.
            _ACTIVE.set(0)
            _BACKLOG.set(0)
            _AGE.set(0)
            connection.terminate()

    @staticmethod
    async def _become_active(connection: Any) -> None:
        """Stand by until the lock is ours; it is free once its holder's connection ends."""
        while not await connection.fetchval(_LOCK):
            if await connection.fetch(_EVICT, _SILENT):
                log.warning("outbox relay was silent; its lock is free")
            await asyncio.sleep(_STANDBY)

    async def _relay(self, connection: Any) -> None:
        loop = asyncio.get_running_loop()
        prune_at = measure_at = loop.time()
        while not connection.is_closed():
            self._woken.clear()
            if loop.time() >= prune_at:
                await connection.execute(_PRUNE, _PRUNE_AGE)
                prune_at = loop.time() + _PRUNE_EVERY
            if loop.time() >= measure_at:
                await _measure(connection)
                measure_at = loop.time() + _MEASURE_EVERY
            rows = await connection.fetch(_READ, BATCH)
            published = await self._publish(connection, [_entry(row) for row in rows])
            if len(rows) == BATCH and published:
                continue
            await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(min(_POLL, self._publisher.next_retry())):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _publish(self, connection: Any, batch: Sequence[Entry]) -> bool:
        """Publish what can be published of a batch; whether anything was settled."""
        outcome = await self._outcome(connection, batch)
        if outcome.superseded and self._on_superseded is not None:
            await self._on_superseded(outcome.superseded)
        if outcome.done:
            await connection.execute(_SETTLE, outcome.done, *outcome.columns())
            _PUBLISHED.inc(len(outcome.done))
        return bool(outcome.done)

    async def _outcome(self, connection: Any, batch: Sequence[Entry]) -> Outcome:
        """Publish, however long it takes, as long as the lock is ours."""
        publishing = asyncio.create_task(self._publisher.publish(batch))
        try:
            while not (await asyncio.wait({publishing}, timeout=_SIGN_OF_LIFE))[0]:
                await connection.execute("SELECT 1")
            return await publishing
        finally:
            if not publishing.done():
                publishing.cancel()
                await asyncio.wait({publishing})


async def _measure(connection: Any) -> None:
    row = await connection.fetchrow(_MEASURE)
    _BACKLOG.set(row["waiting"])
    _AGE.set(max(row["age"], 0))


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(
        id=row["id"],
        msg_id=row["msg_id"],
        subject=row["subject"],
        headers=json.loads(row["headers"]),
        payload=row["payload"],
        key=row["key"],
        generation=row["generation"] or 0,
        attempt=row["attempt"] or 0,
        expected_sequence=row["sequence"] or 0,
        stored_rank=(row["stored_generation"] or 0, row["stored_attempt"] or 0),
    )


def _reason(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
