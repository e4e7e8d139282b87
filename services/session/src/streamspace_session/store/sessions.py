"""Sessions and their commands in PostgreSQL.

Rows are locked in the order of their ids, then users' usage, then clusters, each in
order too, by everybody: so transactions wait for each other but never in a circle.

A lock and what it protects are read in two statements. In one, a session that had
to wait for its lock would be joined with its newest command as it was before the wait.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from streamspace_common.contracts.ids import ClusterId, SessionId, UserId
from streamspace_common.contracts.sessions import SessionState
from streamspace_session.domain import Change, Order, Tracked
from streamspace_session.policy.quotas import Usage
from streamspace_session.ports import Due
from streamspace_session.store import statements
from streamspace_session.store.mapping import order, order_values, session_values, tracked

_ALL = 1_000_000
"""A limit that is none, for the statements that share their shape with limited ones."""


@dataclass
class _Room:
    """What sessions hold, or free again when negative."""

    sessions: int = 0
    cpu_milli: int = 0
    memory: int = 0

    def add(self, one: Tracked, sign: int) -> None:
        self.sessions += sign
        self.cpu_milli += sign * one.cpu_milli
        self.memory += sign * one.memory_bytes

    @property
    def parameters(self) -> dict[str, int]:
        return {
            "more_sessions": self.sessions,
            "more_cpu": self.cpu_milli,
            "more_memory": self.memory,
        }


@dataclass
class _Balance:
    """How a set of changes moves what users hold and clusters have reserved."""

    users: dict[str, _Room] = field(default_factory=dict)
    clusters: dict[str, _Room] = field(default_factory=dict)

    def count(self, one: Tracked, sign: int) -> None:
        session = one.session
        if session.state.is_final:
            return
        self.users.setdefault(session.owner.user_id, _Room()).add(one, sign)
        if session.cluster_id is not None:
            self.clusters.setdefault(session.cluster_id, _Room()).add(one, sign)


class SqlSessions:
    """`ports.Sessions` inside one transaction.

    Args:
        connection: the transaction's.
        see_time: told the database's time where a statement brought it along.
    """

    def __init__(self, connection: AsyncConnection, see_time: Callable[[datetime], None]) -> None:
        self._connection = connection
        self._see_time = see_time

    async def get(self, session: SessionId) -> Tracked | None:
        found = await self._read(statements.GET, {"id": session})
        return found[0] if found else None

    async def lock(self, sessions: Collection[SessionId]) -> dict[SessionId, Tracked]:
        if not sessions:
            return {}
        found = await self._lock(statements.LOCK, {"ids": list(sessions)})
        return {one.session.id: one for one in found}

    async def lock_cluster(
        self, cluster: ClusterId, named: Collection[SessionId]
    ) -> dict[SessionId, Tracked]:
        parameters = {"cluster": cluster, "ids": list(named)}
        found = await self._lock(statements.LOCK_CLUSTER, parameters)
        return {one.session.id: one for one in found}

    async def lock_left(self, cluster: ClusterId, limit: int) -> list[Tracked]:
        return await self._lock(statements.LOCK_LEFT, {"cluster": cluster}, limit)

    async def lock_overdue(self, limit: int) -> list[Tracked]:
        return await self._lock(statements.LOCK_OVERDUE, {}, limit)

    async def lock_aged(self, limit: int) -> list[Tracked]:
        return await self._lock(statements.LOCK_AGED, {}, limit)

    async def lock_out_of_sight(self, limit: int) -> list[Tracked]:
        return await self._lock(statements.LOCK_OUT_OF_SIGHT, {}, limit)

    async def lock_unplaced(self, limit: int) -> list[Tracked]:
        return await self._lock(statements.LOCK_UNPLACED, {}, limit)

    async def lock_delivered(self, cluster: ClusterId, sequence: int, limit: int) -> list[Tracked]:
        parameters = {"cluster": cluster, "sequence": sequence}
        return await self._lock(statements.LOCK_DELIVERED, parameters, limit)

    async def waiting_clusters(self, longer: timedelta) -> list[ClusterId]:
        rows = await self._connection.execute(statements.WAITING_CLUSTERS, {"longer": longer})
        return [ClusterId(cluster) for cluster in rows.scalars()]

    async def insert(self, new: Sequence[Tracked]) -> None:
        if not new:
            return
        balance = _Balance()
        for one in new:
            balance.count(one, 1)
        await self._connection.execute(
            statements.INSERT_SESSION, [session_values(one) for one in new]
        )
        await self._connection.execute(
            statements.INSERT_COMMAND,
            [order_values(one.order, one.session.cluster_id) for one in new],
        )
        await self._settle(balance)

    async def save(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        after = sorted((c.after for c in changes), key=lambda one: one.session.id)
        await self._connection.execute(
            statements.UPDATE_SESSION,
            [statements.changing(session_values(one), table="sessions") for one in after],
        )
        await self._save_orders(changes)
        balance = _Balance()
        for change in changes:
            balance.count(change.before, -1)
            balance.count(change.after, 1)
        await self._settle(balance)

    async def touch(self, activity: Mapping[SessionId, timedelta]) -> None:
        await self._connection.execute(
            statements.TOUCH,
            [{"id": session, "ago": ago} for session, ago in sorted(activity.items())],
        )

    async def orders(self, session: SessionId) -> list[Order]:
        rows = await self._connection.execute(statements.ORDERS, {"session": session})
        return [order(row) for row in rows.mappings()]

    async def home_is_shared(self, owner: UserId, but: SessionId) -> bool:
        found = await self._connection.execute(
            text(
                "SELECT EXISTS (SELECT FROM sessions WHERE owner_id = :owner AND id <> :but "
                "AND persistent_home AND state NOT IN ('terminated', 'failed'))"
            ),
            {"owner": owner, "but": but},
        )
        return bool(found.scalar_one())

    async def lock_usage(self, owners: Collection[UserId]) -> dict[UserId, Usage]:
        held = await self._connection.execute(statements.LOCK_USAGE, {"owners": sorted(owners)})
        return {
            UserId(row.owner_id): Usage(row.sessions, row.cpu_milli, row.memory_bytes)
            for row in held
        }

    async def count_by_state(self) -> dict[tuple[SessionState, ClusterId | None], int]:
        rows = await self._connection.execute(
            text(
                "SELECT state, cluster_id, count(*) AS number FROM sessions "
                "GROUP BY state, cluster_id"
            )
        )
        return {(SessionState(row.state), row.cluster_id): row.number for row in rows}

    async def forget_ended(self, older: timedelta, limit: int) -> int:
        gone = await self._connection.execute(
            statements.FORGET_ENDED, {"older": older, "most": limit}
        )
        return gone.rowcount

    async def oldest_waiting(self) -> timedelta | None:
        found = await self._connection.execute(
            text(
                "SELECT clock_timestamp() - min(issued_at) FROM commands "
                "WHERE state = 'pending' AND cluster_id IS NOT NULL"
            )
        )
        age: timedelta | None = found.scalar_one()
        return age

    async def due(self, letters_after: timedelta) -> Due:
        row = (await self._connection.execute(statements.DUE, {"letters": letters_after})).one()
        return Due(row.overdue, row.aged, row.out_of_sight, row.unplaced, row.letters)

    async def _read(self, statement: TextClause, parameters: dict[str, Any]) -> list[Tracked]:
        rows = (await self._connection.execute(statement, parameters)).mappings().all()
        if rows:
            self._see_time(rows[0]["read_at"])
        return [tracked(row) for row in rows]

    async def _lock(
        self, statement: TextClause, parameters: dict[str, Any], limit: int = _ALL
    ) -> list[Tracked]:
        found = await self._connection.execute(statement, {**parameters, "most": limit})
        rows = found.mappings().all()
        if not rows:
            return []
        ids = {"ids": [row["command_id"] for row in rows]}
        newest = (await self._connection.execute(statements.NEWEST_ORDERS, ids)).mappings().all()
        self._see_time(newest[0]["read_at"])
        orders = {row["id"]: order(row) for row in newest}
        return [tracked(row, orders[row["command_id"]]) for row in rows]

    async def _save_orders(self, changes: Sequence[Change]) -> None:
        new, changed = [], []
        for change in changes:
            was, now = change.before.order, change.after.order
            cluster = change.after.session.cluster_id
            if was.generation != now.generation:
                new.append(order_values(now, cluster))
                if change.replaced is not None and change.replaced != was:
                    changed.append(order_values(change.replaced, cluster))
            elif was != now or change.before.session.cluster_id != cluster:
                changed.append(order_values(now, cluster))
        if new:
            await self._connection.execute(statements.INSERT_COMMAND, new)
        if changed:
            await self._connection.execute(
                statements.UPDATE_COMMAND,
                [statements.changing(values, table="commands") for values in changed],
            )

    async def _settle(self, balance: _Balance) -> None:
        await self._move(statements.SETTLE_USAGE, "owner", balance.users)
        await self._move(statements.RESERVE, "cluster", balance.clusters)

    async def _move(self, statement: TextClause, key: str, rooms: Mapping[str, _Room]) -> None:
        moved = [
            {key: name, **room.parameters} for name, room in sorted(rooms.items()) if room.sessions
        ]
        if moved:
            await self._connection.execute(statement, moved)
