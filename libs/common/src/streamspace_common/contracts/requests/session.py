"""What the session service is asked: sessions, tickets, clusters."""

from pydantic import Field

from streamspace_common.contracts.base import Contract, Secret, Timestamp
from streamspace_common.contracts.catalog import Protocol, RuntimeKind
from streamspace_common.contracts.clusters import Cluster
from streamspace_common.contracts.dead_letters import (
    DeadLetter,
    DeadLetterIdText,
    DeadLetterState,
)
from streamspace_common.contracts.history import HistoryEntry
from streamspace_common.contracts.ids import (
    ClusterIdText,
    CommandIdText,
    SessionIdText,
    TemplateIdText,
    UserIdText,
)
from streamspace_common.contracts.requests.methods import AuthenticatedRequest, Method, Page
from streamspace_common.contracts.sessions import Session, SessionCommand, SessionState, ViewerRole


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
    traceparent: str | None = Field(
        default=None, description="Of the request that asked for the ticket."
    )


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


class SessionAt(SessionRequest):
    """The session as it was at a moment."""

    at: Timestamp


class SessionHistoryRequest(SessionRequest, Page):
    """Oldest first."""


class SessionHistory(Contract):
    items: tuple[HistoryEntry, ...]
    next_cursor: str | None = None


class ListDeadLetters(AuthenticatedRequest, Page):
    """Newest first; without `states` the open ones."""

    cluster_id: ClusterIdText | None = None
    session_id: SessionIdText | None = None
    states: tuple[DeadLetterState, ...] = ()


class DeadLetterPage(Contract):
    items: tuple[DeadLetter, ...]
    next_cursor: str | None = None


class DeadLetterRequest(AuthenticatedRequest):
    letter_id: DeadLetterIdText


class RetryAccepted(Contract):
    """The letter, the session as it is now, and the command that was sent instead."""

    letter: DeadLetter
    session: Session
    command_id: CommandIdText


class ListClusters(AuthenticatedRequest):
    pass


class ClusterList(Contract):
    items: tuple[Cluster, ...]


class GetCluster(AuthenticatedRequest):
    cluster_id: ClusterIdText


class RedriveCluster(AuthenticatedRequest):
    cluster_id: ClusterIdText


class Redriven(Contract):
    """How many sessions' newest commands are sent to the cluster again."""

    commands: int = Field(ge=0)


class DrainCluster(AuthenticatedRequest):
    """Place no new sessions there; with `hibernate`, put those that run to rest, too."""

    cluster_id: ClusterIdText
    hibernate: bool = False


class Drained(Contract):
    """The cluster as it is now, and how many of its sessions are put to rest."""

    cluster: Cluster
    hibernating: int = Field(default=0, ge=0)


class UndrainCluster(AuthenticatedRequest):
    cluster_id: ClusterIdText


class RemoveCluster(AuthenticatedRequest):
    """Take a revoked cluster off the list; with `end_sessions`, although it has sessions."""

    cluster_id: ClusterIdText
    end_sessions: bool = False


class RemovedCluster(Contract):
    """It is in no list any more. `ended_sessions` is how many sessions ended with it."""

    cluster_id: ClusterIdText
    ended_sessions: int = Field(default=0, ge=0)


class ListRuntimes(AuthenticatedRequest):
    pass


class OfferedRuntimes(Contract):
    """Runtimes of the clusters there are; a template needs one of them to be started."""

    items: tuple[RuntimeKind, ...] = Field(
        description="Of all clusters whose access is not revoked, also of offline ones."
    )
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
    AT = Method("session", "at", SessionAt, Session)
    HISTORY = Method("session", "history", SessionHistoryRequest, SessionHistory)
    LIST_DEAD_LETTERS = Method("session", "list_dead_letters", ListDeadLetters, DeadLetterPage)
    RETRY_DEAD_LETTER = Method("session", "retry_dead_letter", DeadLetterRequest, RetryAccepted)
    DISCARD_DEAD_LETTER = Method("session", "discard_dead_letter", DeadLetterRequest, DeadLetter)
    REDEEM_TICKET = Method("session", "redeem_ticket", RedeemTicket, Admission)
    CHECK_ADMISSION = Method("session", "check_admission", CheckAdmission, AdmissionState)
    LIST_CLUSTERS = Method("session", "list_clusters", ListClusters, ClusterList)
    GET_CLUSTER = Method("session", "get_cluster", GetCluster, Cluster)
    REDRIVE_CLUSTER = Method("session", "redrive_cluster", RedriveCluster, Redriven)
    DRAIN_CLUSTER = Method("session", "drain_cluster", DrainCluster, Drained)
    UNDRAIN_CLUSTER = Method("session", "undrain_cluster", UndrainCluster, Cluster)
    REMOVE_CLUSTER = Method("session", "remove_cluster", RemoveCluster, RemovedCluster)
    LIST_RUNTIMES = Method("session", "list_runtimes", ListRuntimes, OfferedRuntimes)
