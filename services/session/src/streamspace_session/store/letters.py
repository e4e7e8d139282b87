# ruff: noqa: S608 - texts are made of our own names only, values are always parameters
"""Dead letters in PostgreSQL.

A letter is found by whichever tells of it first: the change that gave the command up,
or the server's advisory. The other one adds what it knows. So the row is written by one
statement that either makes it or completes it, and holds it until the commit.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from streamspace_common.contracts.dead_letters import (
    DeadLetter,
    DeadLetterCause,
    DeadLetterId,
    DeadLetterState,
)
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId
from streamspace_session.letter_ports import Buried, LetterQuery
from streamspace_session.store.tables import DeadLetterRow

_COLUMNS = tuple(DeadLetterRow.model_fields)
_ALL = ", ".join(_COLUMNS)
_INSERT = text(
    f"""
    INSERT INTO dead_letters AS known ({_ALL})
    VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
    ON CONFLICT (id) DO UPDATE SET
      reason = CASE WHEN excluded.deliveries IS NULL THEN excluded.reason ELSE known.reason END,
      headers = CASE WHEN excluded.deliveries IS NULL THEN known.headers
                ELSE excluded.headers END,
      origin_sequence = COALESCE(excluded.origin_sequence, known.origin_sequence),
      deliveries = COALESCE(excluded.deliveries, known.deliveries),
      consumer = COALESCE(excluded.consumer, known.consumer)
    RETURNING {_ALL}, xmax = 0 AS is_new
    """.replace(":headers", "CAST(:headers AS jsonb)").replace(
        ":settled_by", "CAST(:settled_by AS jsonb)"
    )
)
_COMPLETE = text(
    f"""
    UPDATE dead_letters SET deliveries = :deliveries, consumer = :consumer
    WHERE id = (SELECT id FROM dead_letters WHERE origin_sequence = :sequence LIMIT 1)
    RETURNING {_ALL}, false AS is_new
    """
)
_UNMOVED = text(
    f"SELECT {_ALL}, false AS is_new FROM dead_letters WHERE moved_at IS NULL "
    "AND died_at < clock_timestamp() - CAST(:longer AS interval) "
    "ORDER BY died_at LIMIT :most FOR UPDATE SKIP LOCKED"
)
_SETTLE = (
    "state = :state, settled_at = CAST(:at AS timestamptz), "
    "settled_by = CAST(:actor AS jsonb), retried_as = :retried_as"
)


class SqlDeadLetters:
    """`ports.DeadLetters` inside one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def bury(self, letter: DeadLetter, payload: bytes) -> Buried:
        found = await self._connection.execute(_INSERT, _values(letter, payload))
        return _buried(found.mappings().one())

    async def complete(self, sequence: int, deliveries: int, consumer: str) -> Buried | None:
        found = await self._connection.execute(
            _COMPLETE, {"sequence": sequence, "deliveries": deliveries, "consumer": consumer}
        )
        row = found.mappings().one_or_none()
        return None if row is None else _buried(row)

    async def unmoved(self, longer: timedelta, limit: int) -> list[Buried]:
        rows = await self._connection.execute(_UNMOVED, {"longer": longer, "most": limit})
        return [_buried(row) for row in rows.mappings()]

    async def moved(self, letter: DeadLetterId) -> None:
        await self._connection.execute(
            text("UPDATE dead_letters SET moved_at = clock_timestamp() WHERE id = :id"),
            {"id": letter},
        )

    async def lock(self, letter: DeadLetterId) -> Buried | None:
        found = await self._connection.execute(
            text(f"SELECT {_ALL}, false AS is_new FROM dead_letters WHERE id = :id FOR UPDATE"),
            {"id": letter},
        )
        row = found.mappings().one_or_none()
        return None if row is None else _buried(row)

    async def session_of(self, letter: DeadLetterId) -> SessionId | None:
        found = await self._connection.execute(
            text("SELECT session_id FROM dead_letters WHERE id = :id"), {"id": letter}
        )
        session = found.scalar_one_or_none()
        return None if session is None else SessionId(session)

    async def page(self, query: LetterQuery) -> list[DeadLetter]:
        conditions, parameters = _conditions(query)
        found = await self._connection.execute(
            text(
                f"SELECT {_ALL} FROM dead_letters WHERE {' AND '.join(conditions)} "
                "ORDER BY died_at DESC, id DESC LIMIT :most"
            ),
            {**parameters, "most": query.limit},
        )
        return [_letter(row) for row in found.mappings()]

    async def settle(
        self,
        letter: DeadLetterId,
        state: DeadLetterState,
        actor: Actor,
        at: datetime,
        retried_as: CommandId | None = None,
    ) -> DeadLetter:
        found = await self._connection.execute(
            text(f"UPDATE dead_letters SET {_SETTLE} WHERE id = :id RETURNING {_ALL}"),
            {
                "id": letter,
                "state": state.value,
                "at": at,
                "actor": actor.model_dump_json(),
                "retried_as": retried_as,
            },
        )
        return _letter(found.mappings().one())

    async def answer(
        self, command: CommandId, before_attempt: int, actor: Actor, at: datetime
    ) -> None:
        await self._connection.execute(
            text(
                f"UPDATE dead_letters SET {_SETTLE} WHERE command_id = :command "
                "AND attempt < :attempt AND state = 'open'"
            ),
            {
                "command": command,
                "attempt": before_attempt,
                "state": DeadLetterState.RETRIED.value,
                "at": at,
                "actor": actor.model_dump_json(),
                "retried_as": command,
            },
        )

    async def origin(
        self, cluster: ClusterId, session: SessionId, generation: int, attempt: int
    ) -> int | None:
        found = await self._connection.execute(
            text(
                "SELECT sequence FROM command_sequences WHERE subject = :subject "
                "AND generation = :generation AND attempt = :attempt"
            ),
            {
                "subject": f"cmd.{cluster}.{session}",
                "generation": generation,
                "attempt": attempt,
            },
        )
        sequence: int | None = found.scalar_one_or_none()
        return sequence

    async def count_open(self) -> int:
        found = await self._connection.execute(
            text("SELECT count(*) FROM dead_letters WHERE state = 'open'")
        )
        return int(found.scalar_one())


def _conditions(query: LetterQuery) -> tuple[list[str], dict[str, Any]]:
    conditions = ["state = ANY(CAST(:states AS text[]))"]
    parameters: dict[str, Any] = {"states": [state.value for state in query.states]}
    for column, value in (("cluster_id", query.cluster), ("session_id", query.session)):
        if value is not None:
            conditions.append(f"{column} = :{column}")
            parameters[column] = value
    if query.after is not None:
        conditions.append(
            "(died_at, id) < (CAST(:after_time AS timestamptz), CAST(:after_id AS text))"
        )
        parameters["after_time"], parameters["after_id"] = query.after
    return conditions, parameters


def _values(letter: DeadLetter, payload: bytes) -> dict[str, Any]:
    by = letter.settled_by
    return {
        **{name: getattr(letter, name, None) for name in _COLUMNS},
        "cause": letter.cause.value,
        "state": letter.state.value,
        "headers": json.dumps(letter.headers),
        "settled_by": by.model_dump_json() if by is not None else None,
        "payload": payload,
        "moved_at": None,
    }


def _buried(row: Mapping[Any, Any]) -> Buried:
    return Buried(
        letter=_letter(row),
        payload=row["payload"],
        is_new=row["is_new"],
        is_moved=row["moved_at"] is not None,
    )


def _letter(row: Mapping[Any, Any]) -> DeadLetter:
    values: dict[str, Any] = {name: row[name] for name in _SHOWN}
    values["cause"] = DeadLetterCause(values["cause"])
    return DeadLetter.model_validate(values)


_SHOWN: Sequence[str] = tuple(DeadLetter.model_fields)
