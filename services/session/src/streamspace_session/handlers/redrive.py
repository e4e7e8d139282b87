"""Sending a cluster its sessions' desired states anew, as an administrator asks.

The newest command of each session that has not ended is sent once more, as a new
attempt: an agent that has carried it out says so again, one that has lost it does it.
An older command is never sent, so nothing that was changed since comes back.
"""

from streamspace_common.contracts.identity import Role, user_actor
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import RedriveCluster, Redriven
from streamspace_session import domain, metrics
from streamspace_session.domain import Timing
from streamspace_session.handlers.effects import carry_out
from streamspace_session.ports import Store


class Redrive:
    """Answers `redrive_cluster`."""

    def __init__(self, store: Store, timing: Timing) -> None:
        self._store = store
        self._timing = timing

    async def cluster(self, request: RedriveCluster) -> Redriven:
        if request.principal.role is not Role.ADMIN:
            raise ProblemError.of(Code.FORBIDDEN, "Only administrators drive a cluster anew.")
        actor = user_actor(request.principal, request.address)
        async with self._store.transaction() as tx:
            if await tx.clusters.lock_one(request.cluster_id) is None:
                raise ProblemError.of(Code.NOT_FOUND, f"There is no cluster {request.cluster_id}.")
        async with self._store.transaction() as tx:
            found = await tx.sessions.lock_cluster(request.cluster_id, ())
            now = await tx.now()
            changed = await carry_out(
                tx,
                [
                    domain.reissue(
                        one, actor=actor, cause=request.request_id, now=now, timing=self._timing
                    )
                    for one in found.values()
                    if not one.state.is_final
                ],
            )
        metrics.count(changed)
        return Redriven(commands=len(changed))
