"""Clusters and their agents' heartbeats in PostgreSQL."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from importlib import metadata
from typing import Any

from sqlalchemy import Row as ResultRow
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import (
    AgentInstance,
    Capacity,
    Cluster,
    Heartbeat,
    Presence,
)
from streamspace_common.contracts.ids import ClusterId
from streamspace_session.cluster_ports import ClusterRecord
from streamspace_session.policy.placement import Candidate
from streamspace_session.policy.presence import Heard, is_behind
from streamspace_session.store.tables import AgentRow, ClusterRow, CommandRow

_CLUSTERS = ClusterRow.__table__  # type: ignore[attr-defined]
_COMMANDS = CommandRow.__table__  # type: ignore[attr-defined]
_AGENTS = AgentRow.__table__  # type: ignore[attr-defined]
_OUR_VERSION = metadata.version("streamspace-session")

_CANDIDATES = select(_CLUSTERS).order_by(_CLUSTERS.c.id).with_for_update()


class SqlClusters:
    """`ports.Clusters` inside one transaction; `now` gives the transaction's time."""

    def __init__(self, connection: AsyncConnection, now: Callable[[], Awaitable[datetime]]) -> None:
        self._connection = connection
        self._now = now

    async def ids(self) -> list[ClusterId]:
        rows = await self._connection.execute(select(_CLUSTERS.c.id).order_by(_CLUSTERS.c.id))
        return [ClusterId(row.id) for row in rows]

    async def lock_one(self, cluster: ClusterId) -> ClusterRecord | None:
        row = (
            await self._connection.execute(
                _records().where(_CLUSTERS.c.id == cluster).with_for_update()
            )
        ).one_or_none()
        return _record(row) if row is not None else None

    async def lock_silent(
        self, late_after: timedelta, offline_after: timedelta
    ) -> list[ClusterRecord]:
        heard = func.max(_AGENTS.c.heard_at)
        last = select(_AGENTS.c.cluster_id).group_by(_AGENTS.c.cluster_id)
        late = last.having(heard <= func.clock_timestamp() - late_after)
        gone = last.having(heard <= func.clock_timestamp() - offline_after)
        shown, id_ = _CLUSTERS.c.presence, _CLUSTERS.c.id
        rows = await self._connection.execute(
            _records()
            .where(
                ((shown == Presence.ONLINE.value) & id_.in_(late))
                | ((shown != Presence.OFFLINE.value) & id_.in_(gone))
            )
            .order_by(_CLUSTERS.c.id)
            .with_for_update(skip_locked=True)
        )
        return [_record(row) for row in rows]

    async def candidates(self) -> list[Candidate]:
        rows = await self._connection.execute(_CANDIDATES)
        return [_candidate(row) for row in rows]

    async def is_live(self, cluster: ClusterId | None) -> bool:
        if cluster is None:
            return False
        found = await self._connection.execute(
            select(_CLUSTERS.c.presence).where(_CLUSTERS.c.id == cluster)
        )
        presence = found.scalar_one_or_none()
        # One that drains takes no new sessions, yet still looks after those it has.
        return presence is not None and presence != Presence.OFFLINE.value

    async def heard(self, cluster: ClusterId) -> list[Heard]:
        rows = await self._connection.execute(
            select(_AGENTS).where(_AGENTS.c.cluster_id == cluster)
        )
        return [Heard(Heartbeat.model_validate(row.heartbeat), row.heard_at) for row in rows]

    async def note(self, heartbeat: Heartbeat) -> None:
        statement = upsert(_AGENTS).values(
            cluster_id=heartbeat.cluster_id,
            instance=heartbeat.instance,
            heartbeat=heartbeat.model_dump(mode="json"),
            heard_at=await self._now(),
        )
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[_AGENTS.c.cluster_id, _AGENTS.c.instance],
                set_={
                    "heartbeat": statement.excluded.heartbeat,
                    "heard_at": statement.excluded.heard_at,
                },
            )
        )

    async def conclude(self, cluster: ClusterId, presence: Presence, live: Sequence[Heard]) -> None:
        values: dict[str, Any] = {"presence": presence.value, "agents": len(live)}
        if live:
            beat = live[0].heartbeat
            values |= {
                "runtime": beat.runtime.value,
                "agent_version": beat.version,
                "architecture": beat.architecture,
                "capacity": beat.capacity.model_dump(mode="json"),
                "labels": beat.labels,
                "trouble": next(
                    (one.heartbeat.trouble for one in live if one.heartbeat.trouble), None
                ),
                "running_sessions": max(one.heartbeat.running_sessions for one in live),
                "last_seen_at": live[0].at,
            }
        await self._connection.execute(
            update(_CLUSTERS).where(_CLUSTERS.c.id == cluster).values(**values)
        )

    async def drain(self, cluster: ClusterId, by: str) -> None:
        await self._change(cluster, drained_at=await self._now(), drained_by=by)

    async def undrain(self, cluster: ClusterId) -> None:
        await self._change(cluster, drained_at=None, drained_by=None)

    async def is_drained(self, cluster: ClusterId | None) -> bool:
        found = await self._connection.execute(
            select(_CLUSTERS.c.id).where(
                _CLUSTERS.c.id == cluster, _CLUSTERS.c.drained_at.is_not(None)
            )
        )
        return found.first() is not None

    async def exists(self, cluster: ClusterId | None) -> bool:
        found = await self._connection.execute(
            select(_CLUSTERS.c.id).where(_CLUSTERS.c.id == cluster)
        )
        return found.first() is not None

    async def views(self) -> list[Cluster]:
        rows = await self._connection.execute(_views().order_by(_CLUSTERS.c.id))
        heard = await self._instances()
        return [_view(row, heard.get(row.id, ())) for row in rows]

    async def view(self, cluster: ClusterId) -> Cluster | None:
        found = await self._connection.execute(_views().where(_CLUSTERS.c.id == cluster))
        row = found.one_or_none()
        if row is None:
            return None
        return _view(row, (await self._instances(cluster)).get(cluster, ()))

    async def _change(self, cluster: ClusterId, **values: Any) -> None:
        await self._connection.execute(
            update(_CLUSTERS)
            .where(_CLUSTERS.c.id == cluster)
            .values(**values, version=_CLUSTERS.c.version + 1)
        )

    async def _instances(self, cluster: ClusterId | None = None) -> dict[str, list[Heard]]:
        """Each cluster's agents that were alive when last concluded, the freshest first."""
        statement = select(_AGENTS).order_by(_AGENTS.c.heard_at.desc(), _AGENTS.c.instance.desc())
        if cluster is not None:
            statement = statement.where(_AGENTS.c.cluster_id == cluster)
        heard: dict[str, list[Heard]] = {}
        for row in await self._connection.execute(statement):
            said = Heartbeat.model_validate(row.heartbeat)
            heard.setdefault(row.cluster_id, []).append(Heard(said, row.heard_at))
        return heard


def _records() -> Any:
    columns = _CLUSTERS.c
    return select(
        columns.id, columns.name, columns.presence, columns.drained_at, columns.reserved_sessions
    )


def _record(row: ResultRow[Any]) -> ClusterRecord:
    return ClusterRecord(
        ClusterId(row.id),
        row.name,
        Presence(row.presence),
        drained=row.drained_at is not None,
        reserved_sessions=row.reserved_sessions,
    )


def _candidate(row: ResultRow[Any]) -> Candidate:
    return Candidate(
        id=ClusterId(row.id),
        presence=Presence(row.presence),
        runtime=RuntimeKind(row.runtime) if row.runtime else None,
        capacity=Capacity.model_validate(row.capacity) if row.capacity else None,
        labels=row.labels,
        architecture=row.architecture,
        drained=row.drained_at is not None,
        revoked=row.revoked_at is not None,
        reserved_sessions=row.reserved_sessions,
        reserved_cpu_milli=row.reserved_cpu_milli,
        reserved_memory=row.reserved_memory,
    )


def _views() -> Any:
    waiting = (
        select(
            _COMMANDS.c.cluster_id,
            func.count().label("waiting"),
            func.min(_COMMANDS.c.issued_at).label("oldest"),
        )
        .where(_COMMANDS.c.state == "pending", _COMMANDS.c.cluster_id.is_not(None))
        .group_by(_COMMANDS.c.cluster_id)
        .subquery()
    )
    age = func.extract("epoch", func.clock_timestamp() - waiting.c.oldest)
    return select(_CLUSTERS, waiting.c.waiting, waiting.c.oldest, age.label("age")).outerjoin_from(
        _CLUSTERS, waiting, waiting.c.cluster_id == _CLUSTERS.c.id
    )


def _view(row: ResultRow[Any], heard: Sequence[Heard]) -> Cluster:
    return Cluster(
        id=row.id,
        name=row.name,
        presence=Presence(row.presence),
        runtime=RuntimeKind(row.runtime) if row.runtime else None,
        version=row.agent_version,
        capacity=Capacity.model_validate(row.capacity) if row.capacity else None,
        running_sessions=row.running_sessions,
        reserved_sessions=row.reserved_sessions,
        waiting_commands=row.waiting or 0,
        oldest_waiting_command_at=row.oldest,
        oldest_waiting_seconds=None if row.age is None else round(max(float(row.age), 0.0), 3),
        agents=row.agents,
        instances=tuple(_instance(one) for one in heard[: row.agents]),
        labels=row.labels,
        last_seen_at=row.last_seen_at,
        trouble=row.trouble,
        drained_at=row.drained_at,
        drained_by=row.drained_by,
        revoked_at=row.revoked_at,
        created_at=row.created_at,
        version_number=row.version,
    )


def _instance(heard: Heard) -> AgentInstance:
    said = heard.heartbeat
    return AgentInstance(
        instance=said.instance,
        version=said.version,
        contract_version=said.contract_version,
        behind=is_behind(said.version, _OUR_VERSION),
        draining=said.draining,
        busy_commands=said.busy_commands,
        last_seen_at=heard.at,
        trouble=said.trouble,
    )
