"""Clusters as operators see them, and what everybody may know of them."""

from collections.abc import Iterable

from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Cluster
from streamspace_common.contracts.identity import Principal
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    ClusterList,
    GetCluster,
    ListClusters,
    ListRuntimes,
    OfferedRuntimes,
)
from streamspace_session.policy.placement import LIVE
from streamspace_session.ports import Store


class ClusterQueries:
    """Answers `list_clusters`, `get_cluster` and `list_runtimes`."""

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

    async def runtimes(self, request: ListRuntimes) -> OfferedRuntimes:
        """For every user: which kinds of sessions can be started, not where."""
        async with self._store.transaction() as tx:
            views = await tx.clusters.views()
        # Nobody waits for one whose agents are not let in.
        clusters = [view for view in views if view.revoked_at is None]
        live = [view for view in clusters if view.presence in LIVE]
        return OfferedRuntimes(items=_runtimes(clusters), live=_runtimes(live))


def _runtimes(clusters: Iterable[Cluster]) -> tuple[RuntimeKind, ...]:
    return tuple(sorted({one.runtime for one in clusters if one.runtime}))


def _check(principal: Principal) -> None:
    if not principal.sees_everything:
        raise ProblemError.of(Code.FORBIDDEN, "Only operators and administrators see clusters.")
