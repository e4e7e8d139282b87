"""What auth is asked: signing in, users, the enrolment of clusters."""

from typing import Any

from pydantic import Field

from streamspace_common.contracts.base import Contract, Secret
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.identity import Role, User
from streamspace_common.contracts.ids import ClusterIdText, UserIdText
from streamspace_common.contracts.requests.methods import (
    AuthenticatedRequest,
    Empty,
    Method,
    MethodForClusters,
    Page,
)


class LoginRequest(Contract):
    username: str = Field(min_length=1, max_length=255)
    password: Secret = Field(min_length=1, max_length=1024)
    address: str | None = None


class Tokens(Contract):
    """`expires_in` and `refresh_expires_in` are seconds."""

    access_token: str = Field(repr=False)
    expires_in: int
    refresh_token: str = Field(repr=False)
    refresh_expires_in: int
    user: User


class RefreshRequest(Contract):
    refresh_token: Secret = Field(min_length=1, max_length=512)
    address: str | None = None


class LogoutRequest(Contract):
    refresh_token: Secret = Field(min_length=1, max_length=512)
    address: str | None = None


class KeySet(Contract):
    """A JWKS: the public keys access tokens are verified with."""

    keys: tuple[dict[str, Any], ...]


class GetUser(AuthenticatedRequest):
    user_id: UserIdText


class ListUsers(AuthenticatedRequest, Page):
    search: str | None = Field(default=None, max_length=255)
    role: Role | None = None
    disabled: bool | None = None


class UserPage(Contract):
    items: tuple[User, ...]
    next_cursor: str | None = None


class CreateUser(AuthenticatedRequest):
    username: str = Field(min_length=1, max_length=255)
    password: Secret = Field(min_length=10, max_length=1024)
    display_name: str | None = Field(default=None, max_length=255)
    email: str | None = Field(default=None, max_length=320)
    role: Role = Role.USER


class UpdateUser(AuthenticatedRequest):
    """Fields left out (or null) stay, an empty text clears.

    `if_version` refuses with `precondition-failed` when the user has changed since.
    """

    user_id: UserIdText
    display_name: str | None = Field(default=None, max_length=255)
    email: str | None = Field(default=None, max_length=320)
    role: Role | None = None
    disabled: bool | None = None
    password: Secret | None = Field(default=None, min_length=10, max_length=1024)
    if_version: int | None = None


class ChangePassword(AuthenticatedRequest):
    """One's own password; the current one proves it is really you.

    Every other sign-in ends; the one of `principal.sign_in` goes on.
    """

    current_password: Secret = Field(min_length=1, max_length=1024)
    new_password: Secret = Field(min_length=10, max_length=1024)


class EnrolCluster(AuthenticatedRequest):
    cluster_id: ClusterIdText
    name: str | None = Field(default=None, max_length=100)
    replace: bool = Field(default=False, description="Issue new credentials for a known cluster.")


class RevokeCluster(AuthenticatedRequest):
    """Let none of its agents in any more, until it is enrolled again."""

    cluster_id: ClusterIdText


class ForgetCluster(AuthenticatedRequest):
    """Take its account away and tell everybody that it is removed; its access is revoked before.

    With `listed`, tell it also of a cluster that auth does not know: it still stands in the
    list that the session service keeps.
    """

    cluster_id: ClusterIdText
    listed: bool = False


class IssueCredential(Contract):
    """An agent's question; the subject it comes on says of which cluster it is."""

    public_key: str = Field(
        pattern=r"^U[A-Z2-7]{55}$",
        description="Of a NATS user key that the agent has made and keeps in memory.",
    )


class AgentCredential(Contract):
    """A user of the cluster's account, valid with the agent's own key."""

    token: str = Field(repr=False, description="A NATS user JWT.")
    expires_in: int = Field(description="Seconds; the agent asks again in good time.")


class AuthMethods:
    LOGIN = Method("auth", "login", LoginRequest, Tokens)
    REFRESH = Method("auth", "refresh", RefreshRequest, Tokens)
    LOGOUT = Method("auth", "logout", LogoutRequest, Empty)
    JWKS = Method("auth", "jwks", Empty, KeySet)
    GET_USER = Method("auth", "get_user", GetUser, User)
    LIST_USERS = Method("auth", "list_users", ListUsers, UserPage)
    CREATE_USER = Method("auth", "create_user", CreateUser, User)
    UPDATE_USER = Method("auth", "update_user", UpdateUser, User)
    CHANGE_PASSWORD = Method("auth", "change_password", ChangePassword, User)
    ENROL_CLUSTER = Method("auth", "enrol_cluster", EnrolCluster, Enrolment)
    REVOKE_CLUSTER = Method("auth", "revoke_cluster", RevokeCluster, Empty)
    REMOVE_CLUSTER = Method("auth", "remove_cluster", ForgetCluster, Empty)
    ISSUE_CREDENTIAL = MethodForClusters(
        "auth", "issue_credential", IssueCredential, AgentCredential
    )
