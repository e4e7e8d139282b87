"""Requests between services: what each method takes and gives.

A `Method` ties a subject (`svc.<service>.<name>` or `rpc.<cluster>.<name>`) to its
request and reply. Every request that acts for a user carries the `Principal` that
the gateway has verified and the caller's address for the audit trail. Any method
may raise `ProblemError` instead of answering.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import Field

from streamspace_common.contracts.base import Contract, Secret, Timestamp
from streamspace_common.contracts.catalog import (
    Catalog,
    FileReport,
    Protocol,
    RuntimeKind,
    Template,
    TemplateDetail,
)
from streamspace_common.contracts.clusters import Cluster, Enrolment, OpenTunnel, TunnelOpened
from streamspace_common.contracts.identity import Principal, Role, User
from streamspace_common.contracts.ids import (
    CatalogIdText,
    ClusterId,
    ClusterIdText,
    CommandIdText,
    SessionIdText,
    TemplateIdText,
    UserIdText,
)
from streamspace_common.contracts.sessions import (
    Session,
    SessionCommand,
    SessionState,
    ViewerRole,
)
from streamspace_common.contracts.subjects import Subject, rpc, service

Request = TypeVar("Request", bound=Contract)
Reply = TypeVar("Reply", bound=Contract)


@dataclass(frozen=True)
class Method(Generic[Request, Reply]):
    """A named request of one service."""

    service: str
    name: str
    request: type[Request]
    reply: type[Reply]

    @property
    def subject(self) -> Subject:
        return service(self.service, self.name)


@dataclass(frozen=True)
class ClusterMethod(Generic[Request, Reply]):
    """A named request to any live agent of a cluster."""

    name: str
    request: type[Request]
    reply: type[Reply]

    def subject(self, cluster: ClusterId) -> Subject:
        return rpc(cluster, self.name)


class Empty(Contract):
    """Nothing to say."""


class AuthenticatedRequest(Contract):
    principal: Principal
    address: str | None = Field(default=None, description="The caller's client address.")
    request_id: str | None = None


class Page(Contract):
    """How lists are paged: an opaque cursor and at most 200 items."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=500)


# auth


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


# session


class ResourceRequest(Contract):
    """Kubernetes quantities; what is left out is the template's default."""

    cpu: str | None = Field(default=None, max_length=20)
    memory: str | None = Field(default=None, max_length=20)


class CreateSession(AuthenticatedRequest):
    """`template` is a template's id, or its name where only one catalog has it."""

    template: str = Field(min_length=1, max_length=255)
    resources: ResourceRequest | None = None
    persistent_home: bool = True
    cluster_id: ClusterIdText | None = None
    idle_timeout: int | None = Field(default=None, ge=60, le=30 * 86400)
    max_duration: int | None = Field(default=None, ge=60, le=30 * 86400)
    idempotency_key: str | None = Field(default=None, max_length=200)


class SessionAccepted(Contract):
    """The session as it is now, and the command that changes it.

    `command_id` is null where nothing had to be done; `replayed` says that the same
    idempotency key was answered before.
    """

    session: Session
    command_id: CommandIdText | None
    replayed: bool = False


class SessionRequest(AuthenticatedRequest):
    session_id: SessionIdText


class DeleteSession(SessionRequest):
    delete_home: bool = False


class ListSessions(AuthenticatedRequest, Page):
    """Operators and admins may ask for everybody's with `everyone`."""

    states: tuple[SessionState, ...] = ()
    template_id: TemplateIdText | None = None
    cluster_id: ClusterIdText | None = None
    owner_id: UserIdText | None = None
    everyone: bool = False
    include_final: bool = False


class SessionPage(Contract):
    items: tuple[Session, ...]
    next_cursor: str | None = None


class ConnectSession(SessionRequest):
    role: ViewerRole = ViewerRole.CONTROL


class Ticket(Contract):
    """A single-use key to one session's stream, good for at most 60 seconds."""

    ticket: str = Field(repr=False)
    session_id: SessionIdText
    role: ViewerRole
    protocol: Protocol
    expires_at: Timestamp


class RedeemTicket(Contract):
    ticket: Secret = Field(max_length=200)
    session_id: SessionIdText


class Admission(Contract):
    """What a redeemed ticket opens. The target comes from here, never from a viewer."""

    session_id: SessionIdText
    user_id: UserIdText
    username: str
    owner_id: UserIdText | None = Field(
        default=None, description="Whose session it is; null stands for the user's own."
    )
    role: ViewerRole
    cluster_id: ClusterIdText
    protocol: Protocol
    port: int
    path: str = "/"


class CheckAdmission(Contract):
    """Asked again while a stream lives: may this user still see this session?"""

    session_id: SessionIdText
    user_id: UserIdText


class AdmissionState(Contract):
    allowed: bool
    reason: str | None = None
    state: SessionState


class KeptAlive(Contract):
    session_id: SessionIdText
    last_activity_at: Timestamp
    idle_deadline: Timestamp | None = None
    expires_at: Timestamp | None = None


class SessionCommands(Contract):
    items: tuple[SessionCommand, ...]


class ListClusters(AuthenticatedRequest):
    pass


class ClusterList(Contract):
    items: tuple[Cluster, ...]


class GetCluster(AuthenticatedRequest):
    cluster_id: ClusterIdText


class ListRuntimes(AuthenticatedRequest):
    pass


class OfferedRuntimes(Contract):
    """Runtimes of the clusters there are; a template needs one of them to be started."""

    items: tuple[RuntimeKind, ...] = Field(description="Of all clusters, also of offline ones.")
    live: tuple[RuntimeKind, ...] = Field(description="Of clusters that can start one right now.")


class SessionMethods:
    CREATE = Method("session", "create", CreateSession, SessionAccepted)
    LIST = Method("session", "list", ListSessions, SessionPage)
    GET = Method("session", "get", SessionRequest, Session)
    DELETE = Method("session", "delete", DeleteSession, SessionAccepted)
    HIBERNATE = Method("session", "hibernate", SessionRequest, SessionAccepted)
    WAKE = Method("session", "wake", SessionRequest, SessionAccepted)
    CONNECT = Method("session", "connect", ConnectSession, Ticket)
    KEEPALIVE = Method("session", "keepalive", SessionRequest, KeptAlive)
    COMMANDS = Method("session", "commands", SessionRequest, SessionCommands)
    REDEEM_TICKET = Method("session", "redeem_ticket", RedeemTicket, Admission)
    CHECK_ADMISSION = Method("session", "check_admission", CheckAdmission, AdmissionState)
    LIST_CLUSTERS = Method("session", "list_clusters", ListClusters, ClusterList)
    GET_CLUSTER = Method("session", "get_cluster", GetCluster, Cluster)
    LIST_RUNTIMES = Method("session", "list_runtimes", ListRuntimes, OfferedRuntimes)


# catalog-sync


class ListTemplates(AuthenticatedRequest, Page):
    search: str | None = Field(default=None, max_length=255)
    category: str | None = Field(default=None, max_length=100)
    tag: str | None = Field(default=None, max_length=100)
    catalog_id: CatalogIdText | None = None


class TemplatePage(Contract):
    items: tuple[Template, ...]
    next_cursor: str | None = None
    total: int
    categories: dict[str, int] = Field(
        default_factory=dict, description="Category -> templates in it, of the whole catalog."
    )


class GetTemplate(AuthenticatedRequest):
    template_id: TemplateIdText


class ListCatalogs(AuthenticatedRequest):
    pass


class CatalogList(Contract):
    items: tuple[Catalog, ...]


class AddCatalog(AuthenticatedRequest):
    """A git repository by URL (https, ssh) or absolute local path."""

    name: str = Field(min_length=1, max_length=100)
    url: str = Field(min_length=1, max_length=2000)
    branch: str | None = Field(default=None, max_length=200)
    token: Secret | None = Field(
        default=None, max_length=1000, description="Sent as the password for https; never shown."
    )


class CatalogRequest(AuthenticatedRequest):
    catalog_id: CatalogIdText


class SyncReport(Contract):
    """By path; what would make it too large a message is left out, accepted files first."""

    catalog: Catalog
    files: tuple[FileReport, ...]
    omitted: int = Field(default=0, ge=0, description="How many files were left out.")


class CatalogMethods:
    LIST_TEMPLATES = Method("catalog", "list_templates", ListTemplates, TemplatePage)
    GET_TEMPLATE = Method("catalog", "get_template", GetTemplate, TemplateDetail)
    LIST_CATALOGS = Method("catalog", "list_catalogs", ListCatalogs, CatalogList)
    GET_CATALOG = Method("catalog", "get_catalog", CatalogRequest, Catalog)
    ADD_CATALOG = Method("catalog", "add_catalog", AddCatalog, Catalog)
    REMOVE_CATALOG = Method("catalog", "remove_catalog", CatalogRequest, Empty)
    SYNC_CATALOG = Method("catalog", "sync_catalog", CatalogRequest, Catalog)
    SYNC_REPORT = Method("catalog", "sync_report", CatalogRequest, SyncReport)


# agents


class AgentMethods:
    OPEN_TUNNEL = ClusterMethod("open_tunnel", OpenTunnel, TunnelOpened)


SERVICE_METHODS: dict[str, tuple[Method[Any, Any], ...]] = {
    "auth": tuple(v for v in vars(AuthMethods).values() if isinstance(v, Method)),
    "session": tuple(v for v in vars(SessionMethods).values() if isinstance(v, Method)),
    "catalog": tuple(v for v in vars(CatalogMethods).values() if isinstance(v, Method)),
}
CLUSTER_METHODS: tuple[ClusterMethod[Any, Any], ...] = tuple(
    v for v in vars(AgentMethods).values() if isinstance(v, ClusterMethod)
)
