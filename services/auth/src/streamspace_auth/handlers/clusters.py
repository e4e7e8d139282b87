"""Clusters: who may join, and with which credential.

The session service makes a cluster's consumer when it hears `ClusterEnrolled`; the
agent's credential is shown once, in the reply, and kept nowhere.
"""

from streamspace_auth.domain.accounts import checked_text, invalid
from streamspace_auth.handlers.credentials import authorised
from streamspace_auth.policy import Action
from streamspace_auth.ports import EnrolledCluster, Enroller, Store, Transaction
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.events import ClusterEnrolled
from streamspace_common.contracts.identity import Actor, user_actor
from streamspace_common.contracts.ids import CORE, ClusterId, new_message_id
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import EnrolCluster

NAME_LENGTH = 100


class Clusters:
    """Answers `enrol_cluster`."""

    def __init__(self, store: Store, enroller: Enroller) -> None:
        self._store = store
        self._enroller = enroller

    async def enrol(self, request: EnrolCluster) -> Enrolment:
        """Let a cluster join. `replace` gives a known one a new credential."""
        async with self._store.transaction() as tx:
            await authorised(tx, request.principal, Action.ENROL_CLUSTER)
            await tx.exclusively(f"enrol {request.cluster_id}")
            known = await tx.clusters.get(request.cluster_id)
            if known is not None and not request.replace:
                raise ProblemError.of(
                    Code.ALREADY_EXISTS,
                    f"Cluster {request.cluster_id} is enrolled already. "
                    "Ask to replace it for a new credential.",
                )
            return await enrol(
                tx,
                self._enroller,
                request.cluster_id,
                name=request.name,
                actor=user_actor(request.principal, request.address),
                cause=request.request_id,
            )


async def enrol(
    tx: Transaction,
    enroller: Enroller,
    cluster_id: ClusterId,
    *,
    name: str | None,
    actor: Actor,
    cause: str | None = None,
) -> Enrolment:
    """Mint a credential and keep that the cluster has it; the caller holds the cluster alone."""
    if cluster_id == CORE:
        raise invalid("id", "No cluster may be called 'core': it names the control plane.")
    minted = enroller.mint(cluster_id)
    known = await tx.clusters.get(cluster_id)
    wanted_name = checked_text(name or "", "name", NAME_LENGTH)
    cluster = EnrolledCluster(
        id=cluster_id,
        name=wanted_name or (known.name if known else cluster_id),
        credential=minted.credential,
        issuer=minted.issuer,
        created_at=known.created_at if known else tx.now,
        enrolled_at=tx.now,
    )
    await tx.clusters.put(cluster)
    await tx.emit(
        ClusterEnrolled(
            id=str(new_message_id()),
            at=tx.now,
            actor=actor,
            cause=cause,
            cluster_id=cluster_id,
            name=cluster.name,
        )
    )
    return minted.enrolment
