"""Draining a cluster, as an operator asks: no new sessions there, and on wish none at all.

What runs there goes on until its owner ends it; a session at rest is not woken, since it
would come back to the very place that is to become empty. Whoever wants it empty sooner
has the running ones hibernated: their files stay, and they can be woken afterwards.
"""

from streamspace_common.contracts.clusters import Cluster
from streamspace_common.contracts.events import ClusterDrained, ClusterUndrained
from streamspace_common.contracts.identity import Actor, Principal, user_actor
from streamspace_common.contracts.ids import ClusterId, new_message_id
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import DrainCluster, Drained, UndrainCluster
from streamspace_session import domain, metrics
from streamspace_session.cluster_ports import ClusterRecord
from streamspace_session.domain import Timing, Tracked, Trigger
from streamspace_session.handlers.effects import carry_out, with_fresh_ids
from streamspace_session.handlers.presence import Presences
from streamspace_session.ports import Store, Transaction

_WHY = "Its cluster is being drained. Wake it when the cluster takes sessions again."


class Drain:
    """Answers `drain_cluster` and `undrain_cluster`; asking twice is no error."""

    def __init__(self, store: Store, presences: Presences, timing: Timing) -> None:
        self._store = store
        self._presences = presences
        self._timing = timing

    async def drain(self, request: DrainCluster) -> Drained:
        _check(request.principal)
        actor = user_actor(request.principal, request.address)
        async with self._store.transaction() as tx:
            cluster = await _locked(tx, request.cluster_id)
            if not cluster.drained:
                await tx.clusters.drain(cluster.id, request.principal.username)
                tx.tell(
                    ClusterDrained(
                        id=str(new_message_id()),
                        at=await tx.now(),
                        actor=actor,
                        cause=request.request_id,
                        cluster_id=cluster.id,
                        hibernate=request.hibernate,
                    )
                )
                await self._presences.conclude(tx, await _locked(tx, cluster.id))
        resting = 0
        if request.hibernate:
            # Sessions are locked before clusters, by everybody: hence a transaction of its own.
            resting = await with_fresh_ids(lambda: self._hibernate(request, actor))
        return Drained(cluster=await self._view(request.cluster_id), hibernating=resting)

    async def undrain(self, request: UndrainCluster) -> Cluster:
        _check(request.principal)
        async with self._store.transaction() as tx:
            cluster = await _locked(tx, request.cluster_id)
            if cluster.drained:
                await tx.clusters.undrain(cluster.id)
                tx.tell(
                    ClusterUndrained(
                        id=str(new_message_id()),
                        at=await tx.now(),
                        actor=user_actor(request.principal, request.address),
                        cause=request.request_id,
                        cluster_id=cluster.id,
                    )
                )
                await self._presences.conclude(tx, await _locked(tx, cluster.id))
        return await self._view(request.cluster_id)

    async def _hibernate(self, request: DrainCluster, actor: Actor) -> int:
        """Put to rest what runs there; what is just starting or ending is left alone."""
        async with self._store.transaction() as tx:
            found = await tx.sessions.lock_cluster(request.cluster_id, ())
            now = await tx.now()
            changed = await carry_out(
                tx,
                [
                    domain.hibernate(
                        one,
                        actor=actor,
                        cause=request.request_id,
                        now=now,
                        timing=self._timing,
                        message=_WHY,
                    )
                    for one in found.values()
                    if domain.allows(one.state, Trigger.HIBERNATE)
                ],
            )
        metrics.count(changed)
        return len(changed)

    async def _view(self, cluster: ClusterId) -> Cluster:
        async with self._store.transaction() as tx:
            found = await tx.clusters.view(cluster)
        if found is None:
            raise _no_such(cluster)
        return found


async def refuse_where_closed(tx: Transaction, tracked: Tracked) -> None:
    """A session at rest comes back on its own cluster, or not at all.

    Raises:
        ProblemError: `no-cluster`; the cluster's access is revoked, or it is being drained.
    """
    cluster = tracked.session.cluster_id
    if await tx.access.is_revoked(cluster):
        raise ProblemError.of(
            Code.NO_CLUSTER,
            f"The access of its cluster, {cluster}, has been revoked: nothing is started there. "
            "Wake it when the cluster has been enrolled again, or ask an administrator.",
        )
    if await tx.clusters.is_drained(cluster):
        raise ProblemError.of(
            Code.NO_CLUSTER,
            f"Its cluster, {cluster}, is being drained: nothing new is started there. "
            "Wake it when the cluster takes sessions again, or ask an operator.",
        )


async def _locked(tx: Transaction, cluster: ClusterId) -> ClusterRecord:
    found = await tx.clusters.lock_one(cluster)
    if found is None:
        raise _no_such(cluster)
    return found


def _no_such(cluster: ClusterId) -> ProblemError:
    return ProblemError.of(Code.NOT_FOUND, f"There is no cluster {cluster}.")


def _check(principal: Principal) -> None:
    if not principal.sees_everything:
        raise ProblemError.of(Code.FORBIDDEN, "Only operators and administrators drain clusters.")
