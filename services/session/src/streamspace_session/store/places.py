# ruff: noqa: S608 - the names are our own
"""Places in the event stream up to which templates, accounts and clusters are known.

News that stand before them are old. A stream that was lost and made anew, or restored from an
older copy, gives places out again: without a look at its end, all its news would count as old.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_KEPT = (
    ("templates", "sequence"),
    ("accounts", "sequence"),
    ("clusters", "access_sequence"),
    ("removed_clusters", "access_sequence"),
)
_FURTHEST = text(
    "SELECT GREATEST(0, "
    + ", ".join(f"(SELECT max({column}) FROM {table})" for table, column in _KEPT)
    + ")"
)
_CUT = tuple(
    text(f"UPDATE {table} SET {column} = :last WHERE {column} > :last") for table, column in _KEPT
)


class SqlPlaces:
    """`ports.Places` inside one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def furthest(self) -> int:
        found = await self._connection.execute(_FURTHEST)
        return int(found.scalar_one())

    async def cut(self, last: int) -> None:
        for statement in _CUT:
            await self._connection.execute(statement, {"last": last})
