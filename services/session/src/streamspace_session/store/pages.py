"""Pages of sessions, each session written as JSON once for each time its row changes.

Pages are read far more often than the sessions on them change, and to make a row into
a model and the model into JSON takes ten times as long as to find it. So PostgreSQL is
asked which rows a page has and which write each of them stems from; only rows whose
writing is not at hand are read whole.

Nobody has to announce a change: what was written is used only for the very write that
PostgreSQL names. That holds for other replicas' changes and for those made by hand.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from streamspace_common.contracts.ids import SessionId
from streamspace_common.store.engine import Database
from streamspace_session.ports import Listed, ListQuery
from streamspace_session.store import statements
from streamspace_session.store.mapping import views

_KEPT = 4096
_LONGEST = 4096
"""Sessions kept and bytes of each: 16 MiB at most. One takes 850 bytes as a rule."""


class Mark(NamedTuple):
    """Which write a row stems from.

    `xmin` is the number of the transaction that wrote it; also of one that leaves the
    version, as activity does. The version is there because after a fail-over numbers of
    lost transactions are given again.
    """

    xmin: int
    version: int


class WrittenSessions:
    """The JSON of sessions, by id and mark; the longest unused are forgotten."""

    def __init__(self, size: int = _KEPT, longest: int = _LONGEST) -> None:
        self._size = size
        self._longest = longest
        self._known: OrderedDict[str, tuple[Mark, bytes]] = OrderedDict()

    def get(self, session: str, mark: Mark) -> bytes | None:
        known = self._known.get(session)
        if known is None or known[0] != mark:
            return None
        self._known.move_to_end(session)
        return known[1]

    def keep(self, session: str, mark: Mark, json: bytes) -> None:
        if len(json) > self._longest:
            return
        self._known[session] = mark, json
        self._known.move_to_end(session)
        if len(self._known) > self._size:
            self._known.popitem(last=False)


class SqlPages:
    """Reads pages, and keeps what it has written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._written = WrittenSessions()

    async def page(self, query: ListQuery) -> Listed:
        """See `ports.Store.page`."""
        condition, values = _condition(query)
        marks = statements.marks(condition, f"${len(values) + 1}")
        async with self._database.reading() as connection:
            found = await connection.fetch(marks, *values, query.limit + 1)
            shown = found[: query.limit]
            items = {id_: self._written.get(id_, Mark(xmin, v)) for id_, xmin, v, _ in shown}
            unknown = [id_ for id_, json in items.items() if json is None]
            if unknown:
                # Under the same condition: one may no longer fulfil it by now.
                named = f"{condition} AND id = ANY(${len(values) + 1}::text[])"
                rows = await connection.fetch(statements.marked(named), *values, unknown)
                items |= self._write(rows)
        more = len(found) > query.limit
        return Listed(
            items=tuple(json for json in items.values() if json is not None),
            end=(shown[-1]["created_at"], SessionId(shown[-1]["id"])) if more else None,
        )

    def _write(self, rows: Sequence[Any]) -> dict[str, bytes]:
        written: dict[str, bytes] = {}
        sessions = views(statements.MARKED_COLUMNS, rows)
        for row, session in zip(rows, sessions, strict=True):
            json = written[session.id] = session.to_json()
            self._written.keep(session.id, Mark(row["xmin"], row["version"]), json)
        return written


def _condition(query: ListQuery) -> tuple[str, list[Any]]:
    """What the query asks, with numbered parameters, and their values."""
    values: list[Any] = []

    def put(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    wanted = {
        "owner_id": query.owner,
        "template_id": query.template,
        "cluster_id": query.cluster,
    }
    conditions = [
        f"{column} = {put(value)}" for column, value in wanted.items() if value is not None
    ]
    if query.states:
        conditions.append(f"state = ANY({put([s.value for s in query.states])}::text[])")
    elif not query.include_final:
        conditions.append(f"state NOT IN {statements.FINAL}")
    if query.after is not None:
        moment, session = query.after
        conditions.append(f"(created_at, id) < ({put(moment)}::timestamptz, {put(session)}::text)")
    return " AND ".join(conditions) or "true", values
