"""Enrolled clusters, and accounts of the bus, in rows."""

from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_auth.ports import ClusterAccess, EnrolledCluster
from streamspace_auth.store.rows import BusAccountRow, ClusterRow, RemovedClusterRow
from streamspace_common.contracts.ids import ClusterId


class ClusterRows:
    """Implements `ports.Clusters`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, cluster_id: ClusterId, *, lock: bool = False) -> EnrolledCluster | None:
        wanted = select(ClusterRow).where(col(ClusterRow.id) == cluster_id)
        found = await self._session.exec(wanted.with_for_update() if lock else wanted)
        row = found.one_or_none()
        return _cluster(row) if row is not None else None

    async def all(self) -> tuple[EnrolledCluster, ...]:
        rows = await self._session.exec(select(ClusterRow).order_by(col(ClusterRow.id)))
        return tuple(_cluster(row) for row in rows)

    async def put(self, cluster: EnrolledCluster) -> None:
        access = cluster.access
        values = {
            "name": cluster.name,
            "credential": cluster.credential,
            "issuer": cluster.issuer,
            "enrolled_at": cluster.enrolled_at,
            "revoked_at": cluster.revoked_at,
            "account": access.account if access else None,
            "agents_key": access.agents_key if access else None,
            "sealed_agents_seed": access.sealed_agents_seed if access else None,
        }
        await self._session.exec(
            insert(ClusterRow)
            .values(id=cluster.id, created_at=cluster.created_at, **values)
            .on_conflict_do_update(index_elements=["id"], set_=values)
        )
        await self._session.exec(
            delete(RemovedClusterRow).where(col(RemovedClusterRow.id) == cluster.id)
        )
        # What was read before this statement is not what the row holds now.
        self._session.expire_all()

    async def remove(self, cluster_id: ClusterId, now: datetime) -> None:
        await self._session.exec(delete(ClusterRow).where(col(ClusterRow.id) == cluster_id))
        await self._session.exec(
            insert(RemovedClusterRow)
            .values(id=cluster_id, removed_at=now)
            .on_conflict_do_update(index_elements=["id"], set_={"removed_at": now})
        )
        self._session.expire_all()

    async def was_removed(self, cluster_id: ClusterId) -> bool:
        found = await self._session.exec(
            select(RemovedClusterRow.id).where(col(RemovedClusterRow.id) == cluster_id)
        )
        return found.first() is not None


class BusAccountRows:
    """Implements `ports.BusAccounts`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def all(self) -> dict[str, str]:
        rows = await self._session.exec(select(BusAccountRow))
        return {row.account: row.token for row in rows}

    async def put(self, account: str, token: str) -> None:
        await self._session.exec(
            insert(BusAccountRow)
            .values(account=account, token=token)
            .on_conflict_do_update(index_elements=["account"], set_={"token": token})
        )

    async def forget(self, account: str) -> None:
        await self._session.exec(delete(BusAccountRow).where(col(BusAccountRow.account) == account))


def _cluster(row: ClusterRow) -> EnrolledCluster:
    access = None
    if row.account and row.agents_key and row.sealed_agents_seed:
        access = ClusterAccess(row.account, row.agents_key, row.sealed_agents_seed)
    return EnrolledCluster(
        id=ClusterId(row.id),
        name=row.name,
        credential=row.credential,
        issuer=row.issuer,
        created_at=row.created_at,
        enrolled_at=row.enrolled_at,
        revoked_at=row.revoked_at,
        access=access,
    )
