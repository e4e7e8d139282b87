"""Who of the clusters is let in, as auth has told, in PostgreSQL.

News of one cluster are published in the order in which they became true, but a replica may
come to an older one after a newer one: their places in the event stream decide.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime

from sqlalchemy import delete, exists, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from streamspace_common.contracts.clusters import Presence
from streamspace_common.contracts.events import ClusterEnrolled, ClusterRevoked
from streamspace_common.contracts.ids import ClusterId
from streamspace_session.store.tables import AgentRow, ClusterRow, RemovedClusterRow

_CLUSTERS = ClusterRow.__table__  # type: ignore[attr-defined]
_AGENTS = AgentRow.__table__  # type: ignore[attr-defined]
_REMOVED = RemovedClusterRow.__table__  # type: ignore[attr-defined]
_UNSENT = (
    text("DELETE FROM outbox WHERE starts_with(subject, :commands)"),
    text("DELETE FROM command_sequences WHERE starts_with(subject, :commands)"),
)
"""Subjects of its commands, in the two tables that the outbox' relay keeps."""


class SqlClusterAccess:
    """`ports.ClusterAccess` inside one transaction; `now` gives the transaction's time."""

    def __init__(self, connection: AsyncConnection, now: Callable[[], Awaitable[datetime]]) -> None:
        self._connection = connection
        self._now = now

    async def enrol(self, event: ClusterEnrolled, sequence: int) -> None:
        removed_since = await self._connection.execute(
            select(
                exists().where(
                    _REMOVED.c.id == event.cluster_id, _REMOVED.c.access_sequence > sequence
                )
            )
        )
        if removed_since.scalar_one():
            return
        statement = upsert(_CLUSTERS).values(
            id=event.cluster_id,
            name=event.name,
            presence=Presence.OFFLINE.value,
            labels={},
            running_sessions=0,
            agents=0,
            reserved_sessions=0,
            reserved_cpu_milli=0,
            reserved_memory=0,
            created_at=await self._now(),
            access_sequence=sequence,
            version=1,
        )
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[_CLUSTERS.c.id],
                set_={
                    "name": statement.excluded.name,
                    "revoked_at": None,
                    "access_sequence": sequence,
                    "version": _CLUSTERS.c.version + 1,
                },
                where=_CLUSTERS.c.access_sequence < sequence,
            )
        )

    async def revoke(self, event: ClusterRevoked, sequence: int) -> None:
        await self._connection.execute(
            update(_CLUSTERS)
            .where(_CLUSTERS.c.id == event.cluster_id, _CLUSTERS.c.access_sequence < sequence)
            .values(revoked_at=event.at, access_sequence=sequence, version=_CLUSTERS.c.version + 1)
        )

    async def revoked(self) -> frozenset[ClusterId]:
        rows = await self._connection.execute(
            select(_CLUSTERS.c.id).where(_CLUSTERS.c.revoked_at.is_not(None))
        )
        return frozenset(ClusterId(row.id) for row in rows)

    async def close(self, cluster: ClusterId, sequence: int) -> bool:
        found = await self._connection.execute(
            update(_CLUSTERS)
            .where(_CLUSTERS.c.id == cluster, _CLUSTERS.c.access_sequence < sequence)
            .values(revoked_at=func.coalesce(_CLUSTERS.c.revoked_at, await self._now()))
        )
        return found.rowcount > 0

    async def remove(self, cluster: ClusterId, sequence: int) -> None:
        await self._connection.execute(delete(_CLUSTERS).where(_CLUSTERS.c.id == cluster))
        await self._connection.execute(delete(_AGENTS).where(_AGENTS.c.cluster_id == cluster))
        for statement in _UNSENT:
            await self._connection.execute(statement, {"commands": f"cmd.{cluster}."})
        kept = upsert(_REMOVED).values(
            id=cluster, access_sequence=sequence, removed_at=await self._now()
        )
        await self._connection.execute(
            kept.on_conflict_do_update(
                index_elements=[_REMOVED.c.id],
                set_={
                    "access_sequence": func.greatest(
                        _REMOVED.c.access_sequence, kept.excluded.access_sequence
                    ),
                    "removed_at": kept.excluded.removed_at,
                },
            )
        )

    async def is_revoked(self, cluster: ClusterId | None) -> bool:
        found = await self._connection.execute(
            select(_CLUSTERS.c.id).where(
                _CLUSTERS.c.id == cluster, _CLUSTERS.c.revoked_at.is_not(None)
            )
        )
        return found.first() is not None
