"""Removing a cluster that will not come back: its sessions end, then nothing of it is left.

Auth decides that a cluster is gone, for it lets clusters in, and tells so with
`cluster.removed.v1` in the transaction that takes its account away. What follows here follows
of that event, whoever was away meanwhile, and in its order among the cluster's other news:
one that is enrolled anew by the same name is not touched by the removal of the former one.

A request that asks for it is checked, handed to auth, and answered when the event has had its
effect here, so that whoever reads the list next does not find the cluster in it.
"""

import asyncio

from streamspace_common.contracts.clusters import Cluster
from streamspace_common.contracts.events import ClusterRemoved
from streamspace_common.contracts.identity import Role
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import ForgetCluster, RemoveCluster, RemovedCluster
from streamspace_common.runtime.logging import get_logger
from streamspace_session import domain, metrics
from streamspace_session.cluster_ports import ClusterAccounts
from streamspace_session.domain import Timing
from streamspace_session.handlers.effects import carry_out
from streamspace_session.ports import Durables, Store

log = get_logger(__name__)

BATCH = 100
"""Sessions per transaction: few enough that nobody waits long for their locks."""
PATIENCE = 15.0
"""Seconds a request waits for the event; less than the gateway waits for the request."""
_PAUSE = 0.05


class Removal:
    """Answers `remove_cluster`, and acts on the event that follows."""

    def __init__(
        self,
        store: Store,
        accounts: ClusterAccounts,
        durables: Durables,
        timing: Timing,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._durables = durables
        self._timing = timing
        self._patience = patience

    async def remove(self, request: RemoveCluster) -> RemovedCluster:
        """Have a cluster removed.

        Raises:
            ProblemError: `forbidden`; `not-found`; `wrong-state` while its agents are let in,
                or while it has sessions and these are not to end; `service-unavailable` where
                auth does not answer (nothing has happened) or the effect is late (it comes).
        """
        if request.principal.role is not Role.ADMIN:
            raise ProblemError.of(Code.FORBIDDEN, "Only administrators remove clusters.")
        cluster = request.cluster_id
        shown = await self._view(cluster)
        sessions = shown.reserved_sessions if shown is not None else 0
        if shown is not None and sessions and not request.end_sessions:
            raise _has_sessions(shown)
        await self._accounts.forget(
            ForgetCluster(
                principal=request.principal,
                address=request.address,
                request_id=request.request_id,
                cluster_id=cluster,
                listed=shown is not None,
            )
        )
        if shown is not None:
            await self._until_gone(shown)
        return RemovedCluster(cluster_id=cluster, ended_sessions=sessions)

    async def act(self, event: ClusterRemoved, sequence: int) -> None:
        """End the cluster's sessions and forget it, as often as the event comes.

        Raises:
            ProblemError: `service-unavailable`; what is left is done when it comes again.
            BusError: the same.
        """
        cluster = event.cluster_id
        async with self._store.transaction() as tx:
            known = await tx.access.close(cluster, sequence)
        # From here on nothing is placed there any more.
        while known and await self._end_some(event):
            pass
        async with self._store.transaction() as tx:
            if not await tx.first_times([event.id]):
                return
            if not await tx.access.close(cluster, sequence):
                log.info("cluster.not_removed", cluster_id=cluster, reason="unknown, or newer")
                return
            await tx.access.remove(cluster, sequence)
            # Before the commit: if it fails, the event comes again.
            await self._durables.clear(cluster)
        log.info("cluster.removed", cluster_id=cluster, actor=event.actor.id)

    async def _end_some(self, event: ClusterRemoved) -> bool:
        """End a batch of its sessions; whether there may be more."""
        async with self._store.transaction() as tx:
            left = await tx.sessions.lock_left(event.cluster_id, BATCH)
            now = await tx.now()
            changed = await carry_out(
                tx,
                [
                    domain.end_with_cluster(
                        one, actor=event.actor, cause=event.cause, now=now, timing=self._timing
                    )
                    for one in left
                ],
            )
        metrics.count(changed)
        return len(left) == BATCH

    async def _until_gone(self, shown: Cluster) -> None:
        """Until the list does not show it any more, or shows another one by its name."""
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    listed = await self._view(shown.id)
                    if listed is None or listed.created_at != shown.created_at:
                        return
                    await asyncio.sleep(_PAUSE)
        except TimeoutError:
            raise ProblemError.of(
                Code.SERVICE_UNAVAILABLE,
                f"Cluster {shown.id} is being removed, which takes longer than usual. "
                "Nothing needs to be done; it leaves the list by itself.",
                retry_after=int(self._patience),
            ) from None

    async def _view(self, cluster: ClusterId) -> Cluster | None:
        async with self._store.transaction() as tx:
            return await tx.clusters.view(cluster)


def _has_sessions(cluster: Cluster) -> ProblemError:
    number = cluster.reserved_sessions
    return ProblemError.of(
        Code.WRONG_STATE,
        f"Cluster {cluster.id} has {number} session{'s' if number != 1 else ''} that "
        f"{'have' if number != 1 else 'has'} not ended. Delete them first, or ask to end them "
        "with it (endSessions): their owners are told that the cluster was removed.",
    )
