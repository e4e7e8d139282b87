"""Requests between services: what each method takes and gives.

A `Method` ties a subject (`svc.<service>.<name>` or `rpc.<cluster>.<name>`) to its
request and reply. Every request that acts for a user carries the `Principal` that
the gateway has verified and the caller's address for the audit trail. Any method
may raise `ProblemError` instead of answering.
"""

from typing import Any

from streamspace_common.contracts.requests.agent import AgentMethods
from streamspace_common.contracts.requests.auth import (
    AuthMethods,
    ChangePassword,
    CreateUser,
    EnrolCluster,
    GetUser,
    KeySet,
    ListUsers,
    LoginRequest,
    LogoutRequest,
    RefreshRequest,
    Tokens,
    UpdateUser,
    UserPage,
)
from streamspace_common.contracts.requests.catalog import (
    AddCatalog,
    CatalogList,
    CatalogMethods,
    CatalogRequest,
    GetTemplate,
    ListCatalogs,
    ListTemplates,
    SyncReport,
    TemplatePage,
)
from streamspace_common.contracts.requests.methods import (
    AuthenticatedRequest,
    ClusterMethod,
    Empty,
    Method,
    Page,
    Reply,
    Request,
)
from streamspace_common.contracts.requests.session import (
    Admission,
    AdmissionState,
    CheckAdmission,
    ClusterList,
    ConnectSession,
    CreateSession,
    DeleteSession,
    GetCluster,
    KeptAlive,
    ListClusters,
    ListRuntimes,
    ListSessions,
    OfferedRuntimes,
    RedeemTicket,
    ResourceRequest,
    SessionAccepted,
    SessionCommands,
    SessionMethods,
    SessionPage,
    SessionRequest,
    Ticket,
)

__all__ = [
    "CLUSTER_METHODS",
    "SERVICE_METHODS",
    "AddCatalog",
    "Admission",
    "AdmissionState",
    "AgentMethods",
    "AuthMethods",
    "AuthenticatedRequest",
    "CatalogList",
    "CatalogMethods",
    "CatalogRequest",
    "ChangePassword",
    "CheckAdmission",
    "ClusterList",
    "ClusterMethod",
    "ConnectSession",
    "CreateSession",
    "CreateUser",
    "DeleteSession",
    "Empty",
    "EnrolCluster",
    "GetCluster",
    "GetTemplate",
    "GetUser",
    "KeptAlive",
    "KeySet",
    "ListCatalogs",
    "ListClusters",
    "ListRuntimes",
    "ListSessions",
    "ListTemplates",
    "ListUsers",
    "LoginRequest",
    "LogoutRequest",
    "Method",
    "OfferedRuntimes",
    "Page",
    "RedeemTicket",
    "RefreshRequest",
    "Reply",
    "Request",
    "ResourceRequest",
    "SessionAccepted",
    "SessionCommands",
    "SessionMethods",
    "SessionPage",
    "SessionRequest",
    "SyncReport",
    "TemplatePage",
    "Ticket",
    "Tokens",
    "UpdateUser",
    "UserPage",
]

SERVICE_METHODS: dict[str, tuple[Method[Any, Any], ...]] = {
    "auth": tuple(v for v in vars(AuthMethods).values() if isinstance(v, Method)),
    "session": tuple(v for v in vars(SessionMethods).values() if isinstance(v, Method)),
    "catalog": tuple(v for v in vars(CatalogMethods).values() if isinstance(v, Method)),
}
CLUSTER_METHODS: tuple[ClusterMethod[Any, Any], ...] = tuple(
    v for v in vars(AgentMethods).values() if isinstance(v, ClusterMethod)
)
