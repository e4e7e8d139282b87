"""Requests in, rules applied, changes and events kept in one transaction.

`methods` and `methods_for_clusters` are the service's whole interface: each method of the
contract with what answers it.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from streamspace_auth.handlers.clusters import Clusters
from streamspace_auth.handlers.signin import SignIn
from streamspace_auth.handlers.users import Users
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.requests import AuthMethods, Method, MethodForClusters

Handler = Callable[[Any], Awaitable[Any]]
ClusterHandler = Callable[[ClusterId, Any], Awaitable[Any]]


def methods(
    sign_in: SignIn, users: Users, clusters: Clusters
) -> Mapping[Method[Any, Any], Handler]:
    """Who answers what."""
    return {
        AuthMethods.LOGIN: sign_in.login,
        AuthMethods.REFRESH: sign_in.refresh,
        AuthMethods.LOGOUT: sign_in.logout,
        AuthMethods.JWKS: sign_in.jwks,
        AuthMethods.GET_USER: users.get,
        AuthMethods.LIST_USERS: users.list,
        AuthMethods.CREATE_USER: users.create,
        AuthMethods.UPDATE_USER: users.update,
        AuthMethods.CHANGE_PASSWORD: users.change_password,
        AuthMethods.ENROL_CLUSTER: clusters.enrol,
        AuthMethods.REVOKE_CLUSTER: clusters.revoke,
        AuthMethods.REMOVE_CLUSTER: clusters.remove,
    }


def methods_for_clusters(
    clusters: Clusters,
) -> Mapping[MethodForClusters[Any, Any], ClusterHandler]:
    """Who answers what agents ask."""
    return {AuthMethods.ISSUE_CREDENTIAL: clusters.issue_credential}
