"""Clusters: who is there, and how a new one joins."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from streamspace_common.contracts.clusters import Cluster, Enrolment
from streamspace_common.contracts.ids import ClusterId, ClusterIdText
from streamspace_common.contracts.requests import (
    AuthMethods,
    ClusterList,
    DrainCluster,
    Drained,
    EnrolCluster,
    GetCluster,
    ListClusters,
    ListRuntimes,
    OfferedRuntimes,
    RedriveCluster,
    Redriven,
    RemoveCluster,
    RemovedCluster,
    RevokeCluster,
    SessionMethods,
    UndrainCluster,
)
from streamspace_gateway.deps import AdminOnly, ClientAddress, CurrentUser, OperatorOnly, StateDep
from streamspace_gateway.routes.answers import problems
from streamspace_gateway.routes.bodies import DrainBody, EnrolClusterBody

router = APIRouter(tags=["clusters"])


@router.get("/runtimes", responses=problems(401))
async def list_runtimes(user: CurrentUser, state: StateDep) -> OfferedRuntimes:
    """Which runtimes there are, so that one can tell what can be launched."""
    return await state.services.call(SessionMethods.LIST_RUNTIMES, ListRuntimes(principal=user))


@router.get("/clusters", responses=problems(401, 403))
async def list_clusters(user: OperatorOnly, state: StateDep) -> ClusterList:
    """Clusters with their agents' presence and load."""
    return await state.services.call(SessionMethods.LIST_CLUSTERS, ListClusters(principal=user))


@router.get("/clusters/{cluster_id}", responses=problems(401, 403, 404))
async def get_cluster(cluster_id: ClusterIdText, user: OperatorOnly, state: StateDep) -> Cluster:
    return await state.services.call(
        SessionMethods.GET_CLUSTER, GetCluster(principal=user, cluster_id=cluster_id)
    )


@router.post("/clusters", status_code=201, responses=problems(401, 403, 409))
async def enrol_cluster(
    body: EnrolClusterBody,
    user: AdminOnly,
    state: StateDep,
    address: ClientAddress,
    response: Response,
) -> Enrolment:
    """Enrol a cluster. The answer is the file its agent starts with, shown only now.

    With `replace`, a cluster that exists gets a new one, and what its agents had is revoked
    at once: they are disconnected until they are given the new file.
    """
    response.headers["Cache-Control"] = "no-store"
    response.headers["Location"] = f"/api/v1/clusters/{body.id}"
    return await state.services.call(
        AuthMethods.ENROL_CLUSTER,
        EnrolCluster(
            principal=user,
            address=address,
            cluster_id=ClusterId(body.id),
            name=body.name,
            replace=body.replace,
        ),
    )


@router.post("/clusters/{cluster_id}/drain", status_code=202, responses=problems(401, 403, 404))
async def drain_cluster(
    cluster_id: ClusterIdText,
    user: OperatorOnly,
    state: StateDep,
    address: ClientAddress,
    body: DrainBody | None = None,
) -> Drained:
    """Place no new sessions on the cluster; those it has stay, unless they are to hibernate."""
    return await state.services.call(
        SessionMethods.DRAIN_CLUSTER,
        DrainCluster(
            principal=user,
            address=address,
            cluster_id=cluster_id,
            hibernate=body is not None and body.hibernate,
        ),
        timeout=20.0,
    )


@router.post("/clusters/{cluster_id}/undrain", responses=problems(401, 403, 404))
async def undrain_cluster(
    cluster_id: ClusterIdText, user: OperatorOnly, state: StateDep, address: ClientAddress
) -> Cluster:
    """Let the cluster take new sessions again."""
    return await state.services.call(
        SessionMethods.UNDRAIN_CLUSTER,
        UndrainCluster(principal=user, address=address, cluster_id=cluster_id),
    )


@router.post("/clusters/{cluster_id}/revoke", status_code=204, responses=problems(401, 403, 404))
async def revoke_cluster(
    cluster_id: ClusterIdText, user: AdminOnly, state: StateDep, address: ClientAddress
) -> None:
    """Put the cluster's agents out at once, and let none in until it is enrolled again.

    Its sessions go on running where they are; nobody reaches them meanwhile.
    """
    await state.services.call(
        AuthMethods.REVOKE_CLUSTER,
        RevokeCluster(principal=user, address=address, cluster_id=cluster_id),
    )


@router.delete("/clusters/{cluster_id}", responses=problems(401, 403, 404, 409))
async def remove_cluster(
    cluster_id: ClusterIdText,
    user: AdminOnly,
    state: StateDep,
    address: ClientAddress,
    end_sessions: Annotated[
        bool,
        Query(alias="endSessions", description="Although it has sessions: they end with it."),
    ] = False,
) -> RemovedCluster:
    """Take a cluster that will not come back off the list, for good.

    Its access has to be revoked before. It is refused while the cluster has sessions that
    have not ended, unless these are to end with it: nobody will ever hear of them again. A
    cluster enrolled by the same name later has nothing of the former one.
    """
    return await state.services.call(
        SessionMethods.REMOVE_CLUSTER,
        RemoveCluster(
            principal=user, address=address, cluster_id=cluster_id, end_sessions=end_sessions
        ),
        timeout=20.0,
    )


@router.post("/clusters/{cluster_id}/redrive", status_code=202, responses=problems(401, 403, 404))
async def redrive_cluster(
    cluster_id: ClusterIdText, user: AdminOnly, state: StateDep, address: ClientAddress
) -> Redriven:
    """Send the cluster the desired state of each of its sessions anew.

    For a cluster that may have lost some: what is as it should be stays as it is.
    """
    return await state.services.call(
        SessionMethods.REDRIVE_CLUSTER,
        RedriveCluster(principal=user, address=address, cluster_id=cluster_id),
        timeout=20.0,
    )
