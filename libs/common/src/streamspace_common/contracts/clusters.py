"""Clusters, their agents, and what agents say of themselves."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from streamspace_common.contracts.base import Contract, Message, Timestamp
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.ids import ClusterIdText, SessionIdText


class Presence(StrEnum):
    ONLINE = "online"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    DRAINING = "draining"


class Capacity(Contract):
    """What an agent's cluster can hold; CPU in cores, memory in bytes."""

    max_sessions: int = Field(ge=0)
    cpu: float = Field(ge=0)
    memory: int = Field(ge=0)


class Heartbeat(Message):
    """Sent every five seconds on `hb.<cluster>.<instance>`."""

    TYPE: ClassVar[str] = "agent.heartbeat.v1"
    cluster_id: ClusterIdText
    instance: str
    runtime: RuntimeKind
    version: str
    contract_version: int = 1
    sent_at: Timestamp
    capacity: Capacity
    running_sessions: int = Field(ge=0)
    busy_commands: int = Field(default=0, ge=0)
    draining: bool = False
    labels: dict[str, str] = Field(default_factory=dict)
    architecture: str | None = None
    trouble: str | None = Field(default=None, description="Set when degraded, in words.")


class ResourceState(StrEnum):
    """A session's resource as its runtime sees it."""

    STARTING = "starting"
    RUNNING = "running"
    HIBERNATED = "hibernated"
    DEAD = "dead"


class ResourceReport(Contract):
    session_id: SessionIdText
    generation: int
    state: ResourceState


class Inventory(Message):
    """All sessions an agent holds, sent on `hb.<cluster>.<instance>`.

    Sent on connect and every 20 seconds. `busy` names sessions a command is working on
    right now, which the reconciler leaves alone.
    """

    TYPE: ClassVar[str] = "agent.inventory.v1"
    cluster_id: ClusterIdText
    instance: str
    sent_at: Timestamp
    resources: tuple[ResourceReport, ...]
    busy: tuple[SessionIdText, ...] = ()


class AgentInstance(Contract):
    """One agent of a cluster, as its last heartbeat showed it."""

    instance: str
    version: str
    contract_version: int
    behind: bool = Field(
        default=False, description="Its version is older than the control plane's."
    )
    draining: bool = Field(default=False, description="It ends and takes no more work.")
    busy_commands: int = 0
    last_seen_at: Timestamp
    trouble: str | None = None


class Cluster(Contract):
    """A cluster as the API shows it."""

    id: ClusterIdText
    name: str
    presence: Presence
    runtime: RuntimeKind | None = None
    version: str | None = None
    capacity: Capacity | None = None
    running_sessions: int = 0
    reserved_sessions: int = 0
    waiting_commands: int = Field(
        default=0, description="Commands no agent of the cluster has taken yet."
    )
    oldest_waiting_command_at: Timestamp | None = None
    oldest_waiting_seconds: float | None = Field(
        default=None, description="Its age by the control plane's clock."
    )
    agents: int = 0
    instances: tuple[AgentInstance, ...] = Field(
        default=(), description="The agents that are alive, the freshest first."
    )
    labels: dict[str, str] = Field(default_factory=dict)
    last_seen_at: Timestamp | None = None
    trouble: str | None = None
    drained_at: Timestamp | None = Field(
        default=None, description="Since when an operator wants no new sessions there."
    )
    drained_by: str | None = Field(default=None, description="Who said so.")
    revoked_at: Timestamp | None = Field(
        default=None,
        description="Since when none of its agents is let in; null while they are. "
        "A new enrolment makes it null again.",
    )
    created_at: Timestamp
    version_number: int = Field(default=1, ge=1)


class Enrolment(Contract):
    """All an agent needs to join: kept by the operator as one file, mode 0600."""

    cluster_id: ClusterIdText
    nats_urls: tuple[str, ...]
    credentials: str = Field(description="A NATS .creds document. Secret.")
    tunnel_url: str = Field(description="Base address the agent dials tunnels back to.")
    certificate_authorities: str | None = Field(
        default=None,
        description="Certificates (PEM) the agent trusts besides its system's own, for NATS and "
        "for the relay.",
    )


class OpenTunnel(Message):
    """Request on `rpc.<cluster>.open_tunnel`: reach a session and dial back.

    The agent connects to the session first, so a dead session is a clean error
    before any tunnel exists, then opens a WebSocket to `dial_url` with the header
    `Authorization: Bearer <secret>`.
    """

    TYPE: ClassVar[str] = "tunnel.open.v1"
    tunnel_id: str
    secret: str = Field(repr=False)
    dial_url: str
    session_id: SessionIdText
    port: int
    deadline: Timestamp


class TunnelOpened(Message):
    TYPE: ClassVar[str] = "tunnel.opened.v1"
    tunnel_id: str
    instance: str
