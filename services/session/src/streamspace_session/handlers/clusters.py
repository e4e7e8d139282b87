"""Clusters as operators see them."""

from streamspace_common.contracts.clusters import Cluster
from streamspace_common.contracts.identity import Principal
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import ClusterList, GetCluster, ListClusters
from streamspace_session.ports import Store


class ClusterQueries:
    """Answers `list_clusters` and `get_cluster`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, request: ListClusters) -> ClusterList:
        _check(request.principal)
        async with self._store.transaction() as tx:
            return ClusterList(items=tuple(await tx.clusters.views()))

    async def get(self, request: GetCluster) -> Cluster:
        _check(request.principal)
        async with self._store.transaction() as tx:
            cluster = await tx.clusters.view(request.cluster_id)
        if cluster is None:
            raise ProblemError.of(Code.NOT_FOUND, f"There is no cluster {request.cluster_id}.")
        return cluster


def _check(principal: Principal) -> None:
    if not principal.sees_everything:
        raise ProblemError.of(Code.FORBIDDEN, "Only operators and administrators see clusters.")
