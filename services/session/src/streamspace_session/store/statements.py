# ruff: noqa: S608 - texts are made of our own names only, values are always parameters
"""The statements of the hot path, as text.

Under load, building a statement with fifty columns from objects costs more than
running it; a text is built once. Columns come from the tables, so they are said in
one place.
"""

from functools import cache
from typing import Any

from sqlalchemy import TextClause, text

from streamspace_session.store.tables import CommandRow, SessionRow

ORDER_PREFIX = "order_"
SESSION_COLUMNS: tuple[str, ...] = tuple(SessionRow.model_fields)
COMMAND_COLUMNS: tuple[str, ...] = tuple(CommandRow.model_fields)
MARKED_COLUMNS: tuple[str, ...] = (*SESSION_COLUMNS, "xmin")
FINAL = "('terminated', 'failed')"

_JSON = frozenset({"resources", "phases", "actor", "earlier"})
_CHANGING_SESSION = (
    "cluster_id", "state", "desired", "reason", "message", "generation", "command_id",
    "protocol", "phases", "restarts", "updated_at", "since", "started_at", "terminated_at",
    "deadline", "last_activity_at", "idle_at", "ends_at", "version",
)  # fmt: skip
_CHANGING_COMMAND = (
    "cluster_id", "state", "attempt", "error", "issued_at", "delivered_at",
    "acknowledged_at", "completed_at", "deadline", "superseded_by", "earlier",
)  # fmt: skip
_TIMES = frozenset(
    name
    for name in (*SESSION_COLUMNS, *COMMAND_COLUMNS)
    if name.endswith("_at") or name in {"since", "deadline"}
)


def _value(name: str, parameter: str) -> str:
    """A parameter with its type where PostgreSQL could not tell it from the context."""
    if name in _JSON:
        return f"CAST(:{parameter} AS jsonb)"
    if name in _TIMES:
        return f"CAST(:{parameter} AS timestamptz)"
    return f":{parameter}"


def _insert(table: str, columns: tuple[str, ...]) -> str:
    values = ", ".join(_value(name, name) for name in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"


def _update(table: str, columns: tuple[str, ...]) -> TextClause:
    values = ", ".join(f"{name} = {_value(name, name)}" for name in columns)
    return text(f"UPDATE {table} SET {values} WHERE id = :id")


_SELECT = (
    "SELECT "
    + ", ".join(f"s.{name}" for name in SESSION_COLUMNS)
    + ", "
    + ", ".join(f"c.{name} AS {ORDER_PREFIX}{name}" for name in COMMAND_COLUMNS)
    + ", clock_timestamp() AS read_at FROM sessions s JOIN commands c ON c.id = s.command_id "
)


def locking(condition: str, *, skip: bool = False, order: str = "id") -> TextClause:
    """Sessions that fulfil the condition, locked."""
    return text(
        f"SELECT * FROM sessions WHERE {condition} ORDER BY {order} LIMIT :most "
        f"FOR UPDATE{' SKIP LOCKED' if skip else ''}"
    )


def reading(condition: str) -> TextClause:
    """Sessions that fulfil the condition, with their newest commands."""
    return text(f"{_SELECT} {condition}")


@cache
def marks(condition: str, most: str) -> str:
    """Which sessions fulfil the condition, the newest first, and which write they stem from.

    For the driver itself, as is `marked`: parameters are `$1` and so on.
    """
    return (
        f"SELECT id, xmin, version, created_at FROM sessions WHERE {condition} "
        f"ORDER BY created_at DESC, id DESC LIMIT {most}"
    )


@cache
def marked(condition: str) -> str:
    """Sessions that fulfil the condition, with the writes they stem from."""
    return f"SELECT {', '.join(MARKED_COLUMNS)} FROM sessions WHERE {condition}"


GET = reading("WHERE s.id = :id")
NEWEST_ORDERS = text(
    "SELECT *, clock_timestamp() AS read_at FROM commands WHERE id = ANY(CAST(:ids AS text[]))"
)
ORDERS = text("SELECT * FROM commands WHERE session_id = :session ORDER BY generation DESC")
LOCK = locking("id = ANY(CAST(:ids AS text[]))")
LOCK_CLUSTER = locking(
    f"(cluster_id = :cluster AND state NOT IN {FINAL}) OR id = ANY(CAST(:ids AS text[]))"
)
LOCK_LEFT = locking(
    f"cluster_id = :cluster AND (state NOT IN {FINAL} OR command_id IN (SELECT id FROM commands "
    "WHERE cluster_id = :cluster AND state IN ('pending', 'delivered', 'acknowledged')))"
)
LOCK_OVERDUE = locking("deadline <= clock_timestamp()", skip=True)
LOCK_AGED = locking(
    "(idle_at <= clock_timestamp() AND state = 'running') OR "
    "(ends_at <= clock_timestamp() AND state NOT IN ('terminated', 'failed', 'terminating'))",
    skip=True,
)
LOCK_OUT_OF_SIGHT = locking(
    f"cluster_id IN (SELECT id FROM clusters WHERE presence = 'offline') "
    f"AND state NOT IN {FINAL} "
    "AND state IN ('starting', 'running', 'hibernating', 'waking')",
    skip=True,
)
LOCK_UNPLACED = locking(
    "cluster_id IS NULL AND state = 'pending'", skip=True, order="created_at, id"
)
LOCK_DELIVERED = locking(
    """
    id IN (
      SELECT s.id FROM commands c JOIN sessions s ON s.command_id = c.id
      JOIN command_sequences held ON held.subject = 'cmd.' || c.cluster_id || '.' || c.session_id
        AND held.generation = c.generation AND held.attempt = c.attempt
      WHERE c.state = 'pending' AND c.cluster_id = :cluster AND held.sequence <= :sequence
    )
    """,
    skip=True,
)
WAITING_CLUSTERS = text(
    "SELECT DISTINCT cluster_id FROM commands WHERE state = 'pending' AND cluster_id IS NOT NULL "
    "AND issued_at < clock_timestamp() - CAST(:longer AS interval) ORDER BY cluster_id"
)
DUE = text(
    f"""
    SELECT EXISTS (SELECT FROM sessions WHERE deadline <= clock_timestamp()) AS overdue,
      EXISTS (SELECT FROM sessions
              WHERE idle_at <= clock_timestamp() AND state = 'running')
      OR EXISTS (SELECT FROM sessions WHERE ends_at <= clock_timestamp()
                 AND state NOT IN ('terminated', 'failed')
                 AND state <> 'terminating') AS aged,
      EXISTS (SELECT FROM clusters c JOIN sessions s ON s.cluster_id = c.id
              WHERE c.presence = 'offline' AND s.state NOT IN {FINAL}
              AND s.state IN ('starting', 'running', 'hibernating', 'waking')) AS out_of_sight,
      EXISTS (SELECT FROM sessions
              WHERE cluster_id IS NULL AND state = 'pending') AS unplaced,
      EXISTS (SELECT FROM dead_letters WHERE moved_at IS NULL
              AND died_at < clock_timestamp() - CAST(:letters AS interval)) AS letters
    """
)

INSERT_SESSION = text(_insert("sessions", SESSION_COLUMNS))
UPDATE_SESSION = _update("sessions", _CHANGING_SESSION)
INSERT_COMMAND = text(_insert("commands", COMMAND_COLUMNS))
UPDATE_COMMAND = _update("commands", _CHANGING_COMMAND)
RESERVE = text(
    """
    UPDATE clusters SET reserved_sessions = reserved_sessions + :more_sessions,
      reserved_cpu_milli = reserved_cpu_milli + :more_cpu,
      reserved_memory = reserved_memory + :more_memory WHERE id = :cluster
    """
)
SETTLE_USAGE = text(
    """
    UPDATE usage SET sessions = sessions + :more_sessions, cpu_milli = cpu_milli + :more_cpu,
      memory_bytes = memory_bytes + :more_memory WHERE owner_id = :owner
    """
)
LOCK_USAGE = text(
    """
    INSERT INTO usage AS held (owner_id, sessions, cpu_milli, memory_bytes)
    SELECT owner_id, 0, 0, 0 FROM unnest(CAST(:owners AS text[])) AS asking (owner_id)
    ON CONFLICT (owner_id) DO UPDATE SET sessions = held.sessions
    RETURNING owner_id, sessions, cpu_milli, memory_bytes
    """
)
TOUCH = text(
    """
    UPDATE sessions SET last_activity_at = seen.at,
      idle_at = seen.at + idle_timeout * interval '1 second'
    FROM (SELECT clock_timestamp() - CAST(:ago AS interval) AS at) AS seen
    WHERE id = :id AND state NOT IN ('terminated', 'failed')
      AND (last_activity_at IS NULL OR last_activity_at < seen.at)
    """
)

FORGET_ENDED = text(
    f"""
    WITH gone AS (
      SELECT id FROM sessions s
      WHERE state IN {FINAL} AND updated_at < clock_timestamp() - CAST(:older AS interval)
        AND NOT EXISTS (SELECT FROM dead_letters WHERE session_id = s.id AND state = 'open')
        AND NOT EXISTS (SELECT FROM session_history WHERE session_id = s.id
          AND at >= clock_timestamp() - CAST(:older AS interval))
      ORDER BY updated_at LIMIT :most FOR UPDATE SKIP LOCKED
    ),
    told AS (DELETE FROM session_history WHERE session_id IN (SELECT id FROM gone)),
    sent AS (DELETE FROM commands WHERE session_id IN (SELECT id FROM gone)),
    dead AS (DELETE FROM dead_letters WHERE session_id IN (SELECT id FROM gone)),
    let_in AS (DELETE FROM tickets WHERE session_id IN (SELECT id FROM gone))
    DELETE FROM sessions WHERE id IN (SELECT id FROM gone)
    """
)


def changing(values: dict[str, Any], *, table: str) -> dict[str, Any]:
    """The parameters of an update, out of all columns' values."""
    names = _CHANGING_SESSION if table == "sessions" else _CHANGING_COMMAND
    return {"id": values["id"], **{name: values[name] for name in names}}
