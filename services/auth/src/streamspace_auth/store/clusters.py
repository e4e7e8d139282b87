"""Enrolled clusters, in rows."""

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from streamspace_auth.ports import EnrolledCluster
from streamspace_auth.store.rows import ClusterRow
from streamspace_common.contracts.ids import ClusterId


class ClusterRows:
    """Implements `ports.Clusters`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, cluster_id: ClusterId) -> EnrolledCluster | None:
        found = await self._session.exec(
            select(ClusterRow).where(col(ClusterRow.id) == cluster_id).with_for_update()
        )
        row = found.one_or_none()
        if row is None:
            return None
        return EnrolledCluster(
            id=ClusterId(row.id),
            name=row.name,
            credential=row.credential,
            issuer=row.issuer,
            created_at=row.created_at,
            enrolled_at=row.enrolled_at,
        )

    async def put(self, cluster: EnrolledCluster) -> None:
        values = {
            "name": cluster.name,
            "credential": cluster.credential,
            "issuer": cluster.issuer,
            "enrolled_at": cluster.enrolled_at,
        }
        await self._session.exec(
            insert(ClusterRow)
            .values(id=cluster.id, created_at=cluster.created_at, **values)
            .on_conflict_do_update(index_elements=["id"], set_=values)
        )
