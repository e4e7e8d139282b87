"""Sessions' history in PostgreSQL: the events themselves, written with what they tell of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from streamspace_common.contracts.events import SESSION_HISTORY, CoreEvent
from streamspace_common.contracts.ids import SessionId
from streamspace_common.runtime.tracing import trace_id_of
from streamspace_session.letter_ports import Recorded

_INSERT = text(
    """
    INSERT INTO session_history (session_id, event_id, type, at, trace_id, payload)
    SELECT session_id, event_id, type, at, trace_id, payload
    FROM unnest(
      CAST(:session_id AS text[]), CAST(:event_id AS text[]), CAST(:type AS text[]),
      CAST(:at AS timestamptz[]), CAST(:trace_id AS text[]), CAST(:payload AS text[])
    ) WITH ORDINALITY AS new (session_id, event_id, type, at, trace_id, payload, position)
    ORDER BY position
    """
)
_PAGE = text(
    "SELECT id, type, trace_id, payload FROM session_history "
    "WHERE session_id = :session AND id > :after ORDER BY id LIMIT :most"
)
_AT = text(
    "SELECT id, type, trace_id, payload FROM session_history "
    "WHERE session_id = :session AND at <= CAST(:at AS timestamptz) "
    "AND type = ANY(CAST(:types AS text[])) ORDER BY id DESC LIMIT 1"
)


@dataclass
class SqlHistory:
    """`ports.History` inside one transaction."""

    connection: AsyncConnection

    async def record(self, told: Sequence[tuple[CoreEvent, str | None]]) -> None:
        """Keep those events that are part of a session's history."""
        kept = [(event, trace) for event, trace in told if isinstance(event, SESSION_HISTORY)]
        if not kept:
            return
        await self.connection.execute(
            _INSERT,
            {
                "session_id": [event.about for event, _ in kept],
                "event_id": [event.id for event, _ in kept],
                "type": [event.TYPE for event, _ in kept],
                "at": [event.at for event, _ in kept],
                "trace_id": [trace_id_of(trace) for _, trace in kept],
                "payload": [event.model_dump_json() for event, _ in kept],
            },
        )

    async def page(self, session: SessionId, after: int, limit: int) -> list[Recorded]:
        found = await self.connection.execute(
            _PAGE, {"session": session, "after": after, "most": limit}
        )
        return [Recorded(*row) for row in found]

    async def last_before(
        self, session: SessionId, at: datetime, types: Sequence[str]
    ) -> Recorded | None:
        found = await self.connection.execute(
            _AT, {"session": session, "at": at, "types": list(types)}
        )
        row = found.one_or_none()
        return None if row is None else Recorded(*row)
