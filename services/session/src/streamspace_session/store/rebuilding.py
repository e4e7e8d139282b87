# ruff: noqa: S608 - schema names are checked, columns are our own, values are parameters
"""A rebuilt projection beside the live one, in one database, and the two compared.

All of it is one transaction with one snapshot: the live tables stand still for it however
much they change meanwhile, and what is rebuilt is seen by nobody until it is complete. So
that the two speak of the same events, those the snapshot does not know are left out.
"""

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import asyncpg
from pydantic_core import to_json

from streamspace_common.store.engine import Database
from streamspace_common.store.silence import SERVER_SIDE, keep_alive
from streamspace_session.domain.rebuilding import HistoryLine, Projection
from streamspace_session.store import copying

_SCHEMA = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
_UNSETTLED = timedelta(seconds=60)
"""No transaction lasts as long: what was told before is in the snapshot or never will be."""
_OUTBOX_PATIENCE = 30.0
_OUTBOX_PAUSE = 0.2
_CONNECT_TIMEOUT = 5.0

_TIMES = frozenset(
    {
        "created_at", "started_at", "terminated_at", "issued_at", "delivered_at",
        "acknowledged_at", "completed_at", "deadline",
    }
)  # fmt: skip
_SESSION_FIELDS = {
    "id": "id", "owner_id": "", "owner_name": "", "template_id": "templateId",
    "template_name": "templateName", "template_display_name": "templateDisplayName",
    "template_digest": "templateDigest", "cluster_id": "clusterId", "state": "state",
    "desired": "desired", "reason": "reason", "message": "message",
    "generation": "generation", "command_id": "", "protocol": "protocol", "resources": "",
    "persistent_home": "persistentHome", "idle_timeout": "idleTimeout",
    "max_duration": "maxDuration", "created_at": "createdAt", "started_at": "startedAt",
    "terminated_at": "terminatedAt",
}  # fmt: skip
"""Columns of `sessions` that are told when they change; phases and activity are not."""
_COMMAND_FIELDS = {
    "id": "id", "session_id": "sessionId", "cluster_id": "", "generation": "generation",
    "action": "action", "state": "state", "attempt": "attempt", "actor": "",
    "error": "error", "created_at": "createdAt", "issued_at": "issuedAt",
    "delivered_at": "deliveredAt", "acknowledged_at": "acknowledgedAt",
    "completed_at": "completedAt", "deadline": "deadline", "superseded_by": "supersededBy",
}  # fmt: skip
_HISTORY_COLUMNS = HistoryLine._fields


class CannotRebuildError(Exception):
    """Not now, or not so; the message says what to do."""


@dataclass(frozen=True)
class Difference:
    """A row that is not the same in both, or only in one of them (None in the other)."""

    table: str
    key: str
    column: str
    live: str | None
    rebuilt: str | None

    def __str__(self) -> str:
        return f"{self.table} {self.key} {self.column}: live {self.live}, rebuilt {self.rebuilt}"


class Rebuilding:
    """One rebuilding, from `begin` to `finish`."""

    def __init__(self, connection: Any, schema: str, live: str) -> None:
        self._connection = connection
        self._schema = schema
        self._live = live
        self._unsettled_since = datetime.max.replace(tzinfo=UTC)
        self._settled_late: frozenset[str] = frozenset()
        self._newer: list[str] = []

    @classmethod
    async def begin(cls, database: Database, schema: str, *, replace: bool) -> Self:
        """Take the snapshot and make the empty tables.

        Raises:
            CannotRebuildError: the schema exists, or its name cannot be used.
        """
        if not _SCHEMA.fullmatch(schema) or schema in {"public", "information_schema"}:
            raise CannotRebuildError(
                f"{schema!r} cannot be used: take small letters, digits and _, for instance "
                "rebuilt_1."
            )
        dsn = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(
            dsn,
            **database.protection,
            timeout=_CONNECT_TIMEOUT,
            server_settings={
                "application_name": "rebuild",
                "timezone": "UTC",
                "jit": "off",
                **SERVER_SIDE,
            },
        )
        try:
            # No timeout of ours: comparing millions of rows takes as long as it takes.
            keep_alive(connection)
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            live = await connection.fetchval("SELECT current_schema()")
            made = cls(connection, schema, live)
            await made._look()
            await made._make(replace=replace)
        except BaseException:
            connection.terminate()
            raise
        return made

    async def _look(self) -> None:
        now = await self._connection.fetchval("SELECT clock_timestamp()")
        self._unsettled_since = now - _UNSETTLED
        rows = await self._connection.fetch(
            f"SELECT event_id FROM {self._live}.session_history WHERE at >= $1",
            self._unsettled_since,
        )
        self._settled_late = frozenset(row["event_id"] for row in rows)

    async def _make(self, *, replace: bool) -> None:
        exists = await self._connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", self._schema
        )
        if exists and not replace:
            raise CannotRebuildError(
                f"There is a schema {self._schema} already. Name another one, or give --replace."
            )
        if exists:
            await self._connection.execute(f"DROP SCHEMA {self._schema} CASCADE")
        await self._connection.execute(f"CREATE SCHEMA {self._schema}")
        for table, columns in (
            ("sessions", _SESSION_FIELDS),
            ("commands", _COMMAND_FIELDS),
            ("session_history", _HISTORY_COLUMNS),
        ):
            names = ", ".join(columns)
            await self._connection.execute(
                f"CREATE TABLE {self._schema}.{table} AS "
                f"SELECT {names} FROM {self._live}.{table} WITH NO DATA"
            )

    async def wait_for_outbox(self, database: Database) -> None:
        """Until everything the snapshot tells of is in the stream.

        Raises:
            CannotRebuildError: it is not published.
        """
        last = await self._connection.fetchval(
            f"SELECT COALESCE(max(id), 0) FROM {self._live}.outbox"
        )
        waiting = (
            "SELECT EXISTS (SELECT FROM outbox WHERE id <= $1 "
            "AND subject LIKE 'evt.core.session.%')"
        )
        tries = int(_OUTBOX_PATIENCE / _OUTBOX_PAUSE)
        for _ in range(tries):
            async with database.reading() as reader:
                if not await reader.fetchval(waiting, last):
                    return
            await asyncio.sleep(_OUTBOX_PAUSE)
        raise CannotRebuildError(
            "Events wait in the outbox and are not published. Is a session service running, "
            "and NATS reachable?"
        )

    def knows(self, event_id: str, at: datetime) -> bool:
        """Whether the snapshot holds what this event tells of."""
        if at < self._unsettled_since or event_id in self._settled_late:
            return True
        self._newer.append(event_id)
        return False

    async def keep(self, batches: AsyncIterable[Sequence[HistoryLine]]) -> None:
        """Write the history; the database takes one batch while the next one is made."""

        async def chunks() -> AsyncIterator[bytes]:
            yield copying.BEGIN
            async for lines in batches:
                yield copying.encoded(lines)
            yield copying.END

        await self._connection.copy_to_table(
            "session_history",
            schema_name=self._schema,
            columns=list(_HISTORY_COLUMNS),
            source=chunks(),
            format="binary",
        )

    async def finish(self, projection: Projection) -> None:
        """Write what the events amount to."""
        await self._copy("sessions", tuple(_SESSION_FIELDS), _session_rows(projection))
        await self._copy("commands", tuple(_COMMAND_FIELDS), _command_rows(projection))
        for table, key in (("sessions", "id"), ("commands", "id"), ("session_history", "event_id")):
            await self._connection.execute(f"ANALYZE {self._schema}.{table} ({key})")

    async def never_kept(self, database: Database) -> list[Difference]:
        """Events left out as newer than the snapshot that nobody has kept to this day.

        What is in the stream was committed before, so by now a look must find it.
        """
        async with database.reading() as reader:
            lost = await reader.fetch(
                "SELECT id FROM unnest($1::text[]) AS newer (id) WHERE NOT EXISTS "
                "(SELECT FROM session_history WHERE event_id = newer.id AND at >= $2)",
                self._newer,
                self._unsettled_since,
            )
        return [Difference("session_history", row["id"], "*", None, "a row") for row in lost]

    async def compare(self, *, begins: datetime | None, most: int) -> tuple[list[Difference], int]:
        """What differs, of at most so many rows of each table, and how many there are in all.

        When the stream has lost what it held before it `begins`, rows of the live tables
        that are older are not missed.
        """
        await self._connection.execute("SET LOCAL work_mem = '256MB'")
        found: list[Difference] = []
        total = 0
        for table, key, since in (
            ("sessions", "id", "created_at"),
            ("commands", "id", "created_at"),
            ("session_history", "event_id", "at"),
        ):
            columns = {
                "sessions": tuple(_SESSION_FIELDS),
                "commands": tuple(_COMMAND_FIELDS),
                "session_history": _HISTORY_COLUMNS,
            }[table]
            comparison = self._comparison(table, key, since, columns)
            rows = await self._connection.fetch(f"{comparison} ORDER BY 1 LIMIT {most}", begins)
            for row in rows:
                found.extend(_differences(table, row, columns))
            total += len(rows)
            if len(rows) == most:
                counted = f"SELECT count(*) FROM ({comparison}) AS differing"
                total += await self._connection.fetchval(counted, begins) - most
        return found, total

    def _comparison(self, table: str, key: str, since: str, columns: Sequence[str]) -> str:
        live = ", ".join(f"l.{name} AS live_{name}" for name in columns)
        rebuilt = ", ".join(f"r.{name} AS new_{name}" for name in columns)
        left = ", ".join(f"l.{name}" for name in columns)
        right = ", ".join(f"r.{name}" for name in columns)
        # A stop of what belonged to no session has no events, and no row.
        return (
            f"SELECT COALESCE(l.{key}, r.{key}) AS key, l.{key} IS NULL AS only_new, "
            f"r.{key} IS NULL AS only_live, {live}, {rebuilt} "
            f"FROM {self._live}.{table} l FULL JOIN {self._schema}.{table} r ON r.{key} = l.{key} "
            f"WHERE ({left}) IS DISTINCT FROM ({right}) "
            f"AND (r.{key} IS NOT NULL OR $1::timestamptz IS NULL OR l.{since} >= $1)"
        )

    async def close(self, *, keep: bool) -> None:
        """Commit the rebuilt tables, or leave nothing behind."""
        try:
            await self._connection.execute("COMMIT" if keep else "ROLLBACK")
        finally:
            await self._connection.close()

    async def _copy(self, table: str, columns: Sequence[str], rows: Iterable[Any]) -> None:
        await self._connection.copy_records_to_table(
            table, schema_name=self._schema, columns=list(columns), records=rows
        )


def _session_rows(projection: Projection) -> Iterable[tuple[Any, ...]]:
    for session_id, session in projection.sessions.items():
        owner = session["owner"]
        special = {
            "owner_id": owner["userId"],
            "owner_name": owner["username"],
            "command_id": projection.newest_command.get(session_id),
            "resources": to_json(session["resources"]).decode(),
        }
        yield _row(_SESSION_FIELDS, session, special)


def _command_rows(projection: Projection) -> Iterable[tuple[Any, ...]]:
    for command_id, command in projection.commands.items():
        special = {
            "cluster_id": projection.clusters.get(command_id),
            "actor": to_json(command["actor"]).decode(),
        }
        yield _row(_COMMAND_FIELDS, command, special)


def _row(
    fields: Mapping[str, str], content: Mapping[str, Any], special: Mapping[str, Any]
) -> tuple[Any, ...]:
    return tuple(
        special[column]
        if not name
        else _time(content.get(name))
        if column in _TIMES
        else content.get(name)
        for column, name in fields.items()
    )


def _time(moment: str | None) -> datetime | None:
    return None if moment is None else datetime.fromisoformat(moment)


def _differences(table: str, row: Mapping[str, Any], columns: Sequence[str]) -> list[Difference]:
    key = str(row["key"])
    if row["only_new"]:
        return [Difference(table, key, "*", None, "a row")]
    if row["only_live"]:
        return [Difference(table, key, "*", "a row", None)]
    return [
        Difference(table, key, name, _shown(row[f"live_{name}"]), _shown(row[f"new_{name}"]))
        for name in columns
        if row[f"live_{name}"] != row[f"new_{name}"]
    ]


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)[:200]
