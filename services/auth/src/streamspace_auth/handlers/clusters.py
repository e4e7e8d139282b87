"""Clusters: who may join, with which credential, and who may no longer.

The session service makes a cluster's consumer when it hears `ClusterEnrolled`. An
enrolment is shown once, in the reply, and kept nowhere; its agents come back with it for
a working credential, each with a key of its own.
"""

from dataclasses import replace
from datetime import timedelta

from streamspace_auth.access import BusAccess
from streamspace_auth.domain.accounts import checked_text, invalid
from streamspace_auth.handlers.credentials import authorised
from streamspace_auth.policy import Action
from streamspace_auth.ports import EnrolledCluster, Enroller, Store, Transaction
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.events import ClusterEnrolled, ClusterRemoved, ClusterRevoked
from streamspace_common.contracts.identity import Actor, user_actor
from streamspace_common.contracts.ids import CORE, ClusterId, new_message_id
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import (
    AgentCredential,
    Empty,
    EnrolCluster,
    ForgetCluster,
    IssueCredential,
    RevokeCluster,
)
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

NAME_LENGTH = 100


class Clusters:
    """Answers what is asked about clusters, and what their agents ask.

    Args:
        store: the database.
        enroller: mints.
        access: makes it count on the bus.
        credential_lifetime: of agents' credentials.
    """

    def __init__(
        self,
        store: Store,
        enroller: Enroller,
        access: BusAccess,
        *,
        credential_lifetime: timedelta,
    ) -> None:
        self._store = store
        self._enroller = enroller
        self._access = access
        self._lifetime = credential_lifetime

    async def enrol(self, request: EnrolCluster) -> Enrolment:
        """Let a cluster join. `replace` gives a known one a new enrolment and ends the old."""
        async with self._store.transaction() as tx:
            await authorised(tx, request.principal, Action.ENROL_CLUSTER)
            await tx.exclusively(f"enrol {request.cluster_id}")
            known = await tx.clusters.get(request.cluster_id, lock=True)
            if known is not None and not request.replace:
                raise ProblemError.of(
                    Code.ALREADY_EXISTS,
                    f"Cluster {request.cluster_id} is enrolled already. "
                    "Ask to replace it for a new enrolment; its agents need that then.",
                )
            return await enrol(
                tx,
                self._enroller,
                self._access,
                request.cluster_id,
                name=request.name,
                actor=user_actor(request.principal, request.address),
                cause=request.request_id,
            )

    async def revoke(self, request: RevokeCluster) -> Empty:
        """Put a cluster's agents out, at once, and let none in until it is enrolled again."""
        async with self._store.transaction() as tx:
            await authorised(tx, request.principal, Action.REVOKE_CLUSTER)
            await tx.exclusively(f"enrol {request.cluster_id}")
            known = await tx.clusters.get(request.cluster_id, lock=True)
            if known is None:
                raise ProblemError.of(Code.NOT_FOUND, "There is no such cluster.")
            if known.revoked_at is not None:
                return Empty()
            await tx.clusters.put(replace(known, revoked_at=tx.now))
            await self._access.apply(tx)
            await tx.emit(
                ClusterRevoked(
                    id=str(new_message_id()),
                    at=tx.now,
                    actor=user_actor(request.principal, request.address),
                    cause=request.request_id,
                    cluster_id=known.id,
                )
            )
        return Empty()

    async def remove(self, request: ForgetCluster) -> Empty:
        """Take a revoked cluster's account away for good, and tell that it is removed.

        The servers keep the account as its revocation left it, which lets nobody in. Whoever
        enrols a cluster by this name later gets another account.

        Raises:
            ProblemError: `wrong-state` while its agents are let in; `not-found`.
        """
        async with self._store.transaction() as tx:
            await authorised(tx, request.principal, Action.REMOVE_CLUSTER)
            await tx.exclusively(f"enrol {request.cluster_id}")
            known = await tx.clusters.get(request.cluster_id, lock=True)
            if known is None and not request.listed:
                raise ProblemError.of(Code.NOT_FOUND, "There is no such cluster.")
            if known is not None:
                await self._forget(tx, known)
            await tx.emit(
                ClusterRemoved(
                    id=str(new_message_id()),
                    at=tx.now,
                    actor=user_actor(request.principal, request.address),
                    cause=request.request_id,
                    cluster_id=request.cluster_id,
                )
            )
        return Empty()

    async def _forget(self, tx: Transaction, known: EnrolledCluster) -> None:
        if known.revoked_at is None:
            raise ProblemError.of(
                Code.WRONG_STATE,
                f"The agents of cluster {known.id} are let in. Drain it if its sessions are to be "
                "kept until they are done, then revoke its access, then remove it.",
            )
        await tx.clusters.remove(known.id, tx.now)
        if known.access is not None:
            await tx.bus_accounts.forget(known.access.account)
        await self._access.apply(tx)

    async def issue_credential(
        self, cluster_id: ClusterId, request: IssueCredential
    ) -> AgentCredential:
        """A working credential for an agent of the cluster that asks."""
        async with self._store.transaction() as tx:
            known = await tx.clusters.get(cluster_id)
            now = tx.now
        if known is None or not known.is_open:
            raise ProblemError.of(
                Code.FORBIDDEN, f"Cluster {cluster_id} is not enrolled. Enrol it again."
            )
        token = self._enroller.agent_token(known, request.public_key, now, now + self._lifetime)
        log.info("agent's credential issued", cluster_id=cluster_id, user=request.public_key)
        return AgentCredential(token=token, expires_in=int(self._lifetime.total_seconds()))


async def enrol(
    tx: Transaction,
    enroller: Enroller,
    access: BusAccess,
    cluster_id: ClusterId,
    *,
    name: str | None,
    actor: Actor,
    cause: str | None = None,
) -> Enrolment:
    """Mint an enrolment and have it, and only it, count; the caller holds the cluster alone."""
    if cluster_id == CORE:
        raise invalid("id", "No cluster may be called 'core': it names the control plane.")
    known = await tx.clusters.get(cluster_id, lock=True)
    account = known.access.account if known and known.access else None
    minted = enroller.mint(cluster_id, tx.now, account=account)
    wanted_name = checked_text(name or "", "name", NAME_LENGTH)
    cluster = EnrolledCluster(
        id=cluster_id,
        name=wanted_name or (known.name if known else cluster_id),
        credential=minted.credential,
        issuer=minted.issuer,
        created_at=known.created_at if known else tx.now,
        enrolled_at=tx.now,
        access=minted.access,
    )
    await tx.clusters.put(cluster)
    await access.apply(tx)
    await tx.emit(
        ClusterEnrolled(
            id=str(new_message_id()),
            at=tx.now,
            actor=actor,
            cause=cause,
            cluster_id=cluster_id,
            name=cluster.name,
            replaced=known is not None,
        )
    )
    return minted.enrolment
