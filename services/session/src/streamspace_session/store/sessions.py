"""Sessions and their commands in PostgreSQL.

Rows are locked in the order of their ids, then users' usage, then clusters, each in
order too, by everybody: so transactions wait for each other but never in a circle.

A lock and what it protects are read in two statements. In one, a session that had
to wait for its lock would be joined with its newest command as it was before the wait.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, insert, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_common.contracts.ids import ClusterId, SessionId, UserId
from streamspace_common.contracts.sessions import SessionCommandState, SessionState
from streamspace_session.domain import Change, Order, Tracked
from streamspace_session.policy.quotas import Usage
from streamspace_session.ports import Due, ListQuery
from streamspace_session.store.mapping import (
    COMMANDS,
    SESSIONS,
    TRACKED_COLUMNS,
    changing_session_values,
    new_session_values,
    order,
    order_values,
    tracked,
)
from streamspace_session.store.tables import ClusterRow, UsageRow

_CLUSTERS = ClusterRow.__table__  # type: ignore[attr-defined]
_USAGE = UsageRow.__table__  # type: ignore[attr-defined]
_FINAL = [state.value for state in SessionState if state.is_final]
_SEEN = ["starting", "running", "hibernating", "waking"]
"""States in which an offline cluster makes a session unknown."""

_UPDATE_SESSION = (
    update(SESSIONS)
    .where(SESSIONS.c.id == bindparam("row_id"))
    .values(
        {
            name: bindparam(name)
            for name in (
                "cluster_id", "state", "desired", "reason", "message", "generation",
                "command_id", "protocol", "phases", "restarts", "updated_at", "since",
                "started_at", "terminated_at", "deadline", "last_activity_at", "idle_at",
                "ends_at", "version",
            )
        }
    )
)  # fmt: skip
_UPDATE_ORDER = (
    update(COMMANDS)
    .where(COMMANDS.c.id == bindparam("row_id"))
    .values(
        {
            name: bindparam(name)
            for name in (
                "cluster_id", "state", "attempt", "error", "issued_at", "acknowledged_at",
                "completed_at", "deadline",
            )
        }
    )
)  # fmt: skip
_DUE = text(
    """
    SELECT EXISTS (SELECT FROM sessions WHERE deadline <= clock_timestamp()) AS overdue,
      EXISTS (SELECT FROM sessions
              WHERE idle_at <= clock_timestamp() AND state = 'running')
      OR EXISTS (SELECT FROM sessions WHERE ends_at <= clock_timestamp()
                 AND state NOT IN ('terminated', 'failed', 'terminating')) AS aged,
      EXISTS (SELECT FROM clusters c JOIN sessions s ON s.cluster_id = c.id
              WHERE c.presence = 'offline'
              AND s.state NOT IN ('terminated', 'failed')
              AND s.state IN ('starting', 'running', 'hibernating', 'waking')) AS out_of_sight,
      EXISTS (SELECT FROM sessions
              WHERE cluster_id IS NULL AND state = 'pending') AS unplaced
    """
)


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
    def is_zero(self) -> bool:
        return self.sessions == 0


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
        session: the transaction.
        see_time: told the database's time where a statement brought it along.
    """

    def __init__(self, session: AsyncSession, see_time: Callable[[datetime], None]) -> None:
        self._session = session
        self._see_time = see_time

    async def get(self, session: SessionId) -> Tracked | None:
        found = await self._read(_tracked().where(SESSIONS.c.id == session))
        return found[0] if found else None

    async def lock(self, sessions: Collection[SessionId]) -> dict[SessionId, Tracked]:
        if not sessions:
            return {}
        found = await self._lock(_locked(SESSIONS.c.id.in_(sorted(sessions))))
        return {one.session.id: one for one in found}

    async def lock_cluster(
        self, cluster: ClusterId, named: Collection[SessionId]
    ) -> dict[SessionId, Tracked]:
        active = and_(SESSIONS.c.cluster_id == cluster, SESSIONS.c.state.not_in(_FINAL))
        found = await self._lock(_locked(or_(active, SESSIONS.c.id.in_(sorted(named)))))
        return {one.session.id: one for one in found}

    async def lock_overdue(self, limit: int) -> list[Tracked]:
        query = _locked(SESSIONS.c.deadline <= func.clock_timestamp(), skip=True)
        return await self._lock(query.limit(limit))

    async def lock_aged(self, limit: int) -> list[Tracked]:
        idle = and_(
            SESSIONS.c.idle_at <= func.clock_timestamp(),
            SESSIONS.c.state == SessionState.RUNNING.value,
        )
        over = and_(
            SESSIONS.c.ends_at <= func.clock_timestamp(),
            SESSIONS.c.state.not_in([*_FINAL, SessionState.TERMINATING.value]),
        )
        return await self._lock(_locked(or_(idle, over), skip=True).limit(limit))

    async def lock_out_of_sight(self, limit: int) -> list[Tracked]:
        offline = select(_CLUSTERS.c.id).where(_CLUSTERS.c.presence == "offline")
        query = _locked(
            and_(SESSIONS.c.cluster_id.in_(offline), SESSIONS.c.state.in_(_SEEN)), skip=True
        )
        return await self._lock(query.limit(limit))

    async def lock_unplaced(self, limit: int) -> list[Tracked]:
        waiting = and_(
            SESSIONS.c.cluster_id.is_(None), SESSIONS.c.state == SessionState.PENDING.value
        )
        query = _locked(waiting, skip=True).order_by(None).order_by(SESSIONS.c.created_at)
        return await self._lock(query.limit(limit))

    async def page(self, query: ListQuery) -> list[Tracked]:
        statement = _tracked()
        for condition in _conditions(query):
            statement = statement.where(condition)
        newest_first = statement.order_by(SESSIONS.c.created_at.desc(), SESSIONS.c.id.desc())
        return await self._read(newest_first.limit(query.limit))

    async def insert(self, tracked: Tracked) -> None:
        cluster = tracked.session.cluster_id
        await self._session.execute(insert(SESSIONS).values(new_session_values(tracked)))
        await self._session.execute(insert(COMMANDS).values(order_values(tracked.order, cluster)))
        if cluster is not None:
            room = _Room()
            room.add(tracked, 1)
            await self._reserve({cluster: room})

    async def save(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        after = sorted((c.after for c in changes), key=lambda one: one.session.id)
        await self._session.execute(
            _UPDATE_SESSION,
            [{"row_id": one.session.id, **changing_session_values(one)} for one in after],
        )
        await self._save_orders(changes)
        await self._settle(changes)

    async def touch(self, activity: Mapping[SessionId, timedelta]) -> None:
        statement = text(
            """
            UPDATE sessions SET last_activity_at = seen.at,
              idle_at = seen.at + idle_timeout * interval '1 second'
            FROM (SELECT clock_timestamp() - CAST(:ago AS interval) AS at) AS seen
            WHERE id = :id AND state NOT IN ('terminated', 'failed')
              AND (last_activity_at IS NULL OR last_activity_at < seen.at)
            """
        )
        for session, ago in sorted(activity.items()):
            await self._session.execute(statement, {"id": session, "ago": ago})

    async def orders(self, session: SessionId) -> list[Order]:
        rows = await self._session.execute(
            select(COMMANDS)
            .where(COMMANDS.c.session_id == session)
            .order_by(COMMANDS.c.generation.desc())
        )
        return [order(row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name

    async def home_is_shared(self, owner: UserId, but: SessionId) -> bool:
        found = await self._session.execute(
            select(SESSIONS.c.id)
            .where(
                SESSIONS.c.owner_id == owner,
                SESSIONS.c.id != but,
                SESSIONS.c.persistent_home,
                SESSIONS.c.state.not_in(_FINAL),
            )
            .limit(1)
        )
        return found.first() is not None

    async def reserve_quota(self, owner: UserId, cpu_milli: int, memory_bytes: int) -> Usage:
        statement = upsert(_USAGE).values(
            owner_id=owner, sessions=1, cpu_milli=cpu_milli, memory_bytes=memory_bytes
        )
        row = (
            await self._session.execute(
                statement.on_conflict_do_update(
                    index_elements=[_USAGE.c.owner_id],
                    set_={
                        "sessions": _USAGE.c.sessions + statement.excluded.sessions,
                        "cpu_milli": _USAGE.c.cpu_milli + statement.excluded.cpu_milli,
                        "memory_bytes": _USAGE.c.memory_bytes + statement.excluded.memory_bytes,
                    },
                ).returning(_USAGE.c.sessions, _USAGE.c.cpu_milli, _USAGE.c.memory_bytes)
            )
        ).one()
        return Usage(*row)

    async def count_by_state(self) -> dict[SessionState, int]:
        rows = await self._session.execute(
            select(SESSIONS.c.state, func.count()).group_by(SESSIONS.c.state)
        )
        return {SessionState(state): count for state, count in rows}

    async def oldest_waiting(self) -> timedelta | None:
        found = await self._session.execute(
            select(func.clock_timestamp() - func.min(COMMANDS.c.issued_at)).where(
                COMMANDS.c.state == SessionCommandState.PENDING.value,
                COMMANDS.c.cluster_id.is_not(None),
            )
        )
        age: timedelta | None = found.scalar_one()
        return age

    async def due(self) -> Due:
        row = (await self._session.execute(_DUE)).one()
        return Due(row.overdue, row.aged, row.out_of_sight, row.unplaced)

    async def _read(self, statement: Select[Any]) -> list[Tracked]:
        rows = (await self._session.execute(statement)).all()
        if rows:
            self._see_time(rows[0].read_at)
        return [tracked(row) for row in rows]

    async def _lock(self, statement: Select[Any]) -> list[Tracked]:
        rows = (await self._session.execute(statement)).all()
        if not rows:
            return []
        commands = select(COMMANDS, func.clock_timestamp().label("read_at")).where(
            COMMANDS.c.id.in_([row.command_id for row in rows])
        )
        newest = (await self._session.execute(commands)).all()
        self._see_time(newest[0].read_at)
        orders = {row.id: order(row._mapping) for row in newest}  # noqa: SLF001 - as above
        return [tracked(row, orders[row.command_id]) for row in rows]

    async def _save_orders(self, changes: Sequence[Change]) -> None:
        new, changed = [], []
        for change in changes:
            was, now = change.before.order, change.after.order
            cluster = change.after.session.cluster_id
            if was.id != now.id:
                new.append(order_values(now, cluster))
                if change.replaced is not None and change.replaced != was:
                    changed.append(_order_update(change.replaced, cluster))
            elif was != now or change.before.session.cluster_id != cluster:
                changed.append(_order_update(now, cluster))
        if new:
            await self._session.execute(insert(COMMANDS), new)
        if changed:
            await self._session.execute(_UPDATE_ORDER, changed)

    async def _settle(self, changes: Iterable[Change]) -> None:
        balance = _Balance()
        for change in changes:
            balance.count(change.before, -1)
            balance.count(change.after, 1)
        users = {name: room for name, room in balance.users.items() if not room.is_zero}
        if users:
            await self._session.execute(
                update(_USAGE)
                .where(_USAGE.c.owner_id == bindparam("row_id"))
                .values(
                    sessions=_USAGE.c.sessions + bindparam("more_sessions"),
                    cpu_milli=_USAGE.c.cpu_milli + bindparam("more_cpu"),
                    memory_bytes=_USAGE.c.memory_bytes + bindparam("more_memory"),
                ),
                _rooms(users),
            )
        clusters = {name: room for name, room in balance.clusters.items() if not room.is_zero}
        if clusters:
            await self._reserve(clusters)

    async def _reserve(self, clusters: Mapping[str, _Room]) -> None:
        await self._session.execute(
            update(_CLUSTERS)
            .where(_CLUSTERS.c.id == bindparam("row_id"))
            .values(
                reserved_sessions=_CLUSTERS.c.reserved_sessions + bindparam("more_sessions"),
                reserved_cpu_milli=_CLUSTERS.c.reserved_cpu_milli + bindparam("more_cpu"),
                reserved_memory=_CLUSTERS.c.reserved_memory + bindparam("more_memory"),
            ),
            _rooms(clusters),
        )


def _rooms(rooms: Mapping[str, _Room]) -> list[dict[str, Any]]:
    return [
        {
            "row_id": name,
            "more_sessions": room.sessions,
            "more_cpu": room.cpu_milli,
            "more_memory": room.memory,
        }
        for name, room in sorted(rooms.items())
    ]


def _order_update(one: Order, cluster: ClusterId | None) -> dict[str, Any]:
    values = order_values(one, cluster)
    return {
        "row_id": one.id,
        **{
            name: values[name]
            for name in (
                "cluster_id", "state", "attempt", "error", "issued_at", "acknowledged_at",
                "completed_at", "deadline",
            )
        },
    }  # fmt: skip


def _tracked() -> Select[Any]:
    return select(*TRACKED_COLUMNS, func.clock_timestamp().label("read_at")).join_from(
        SESSIONS, COMMANDS, COMMANDS.c.id == SESSIONS.c.command_id
    )


def _locked(condition: Any, *, skip: bool = False) -> Select[Any]:
    locked = select(SESSIONS).where(condition).order_by(SESSIONS.c.id)
    return locked.with_for_update(skip_locked=skip)


def _conditions(query: ListQuery) -> Iterable[Any]:
    if query.owner is not None:
        yield SESSIONS.c.owner_id == query.owner
    if query.states:
        yield SESSIONS.c.state.in_([state.value for state in query.states])
    elif not query.include_final:
        yield SESSIONS.c.state.not_in(_FINAL)
    if query.template is not None:
        yield SESSIONS.c.template_id == query.template
    if query.cluster is not None:
        yield SESSIONS.c.cluster_id == query.cluster
    if query.after is not None:
        yield tuple_(SESSIONS.c.created_at, SESSIONS.c.id) < tuple_(*query.after)
