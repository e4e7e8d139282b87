"""Sessions: their states, and what is asked of them."""

from enum import StrEnum

from pydantic import Field

from streamspace_common.contracts.base import Contract, Timestamp
from streamspace_common.contracts.catalog import Protocol, ResourceAmounts, TemplateManifest
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import (
    ClusterIdText,
    CommandIdText,
    SessionIdText,
    TemplateIdText,
    UserIdText,
)


class SessionState(StrEnum):
    """Where a session is, as far as the control plane knows."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    HIBERNATING = "hibernating"
    HIBERNATED = "hibernated"
    WAKING = "waking"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Nothing runs any more and nothing will; such sessions use no quota."""
        return self in {SessionState.TERMINATED, SessionState.FAILED}


class DesiredState(StrEnum):
    RUNNING = "running"
    HIBERNATED = "hibernated"
    TERMINATED = "terminated"


class Phase(StrEnum):
    """Steps of a start, in order; a runtime reports those it has."""

    SCHEDULED = "scheduled"
    PULLING = "pulling"
    CREATED = "created"
    STARTED = "started"
    READY = "ready"


class PhaseTiming(Contract):
    """When a start reached a phase, counted from the moment the agent began it."""

    phase: Phase
    elapsed_ms: float = Field(ge=0)
    message: str | None = Field(default=None, description="How it went, or how far it is.")
    ongoing: bool = Field(
        default=False,
        description="It takes its time and is told again as it goes on; not reached yet.",
    )


class Reason(StrEnum):
    """Why a session is in the state it is in; stable codes for people and programs.

    One that only newer versions know is read as `other`: what happened must not be lost
    for the want of a word, and the message beside it tells more anyway.
    """

    USER = "user"
    START_FAILED = "start-failed"
    WAKE_FAILED = "wake-failed"
    HIBERNATE_FAILED = "hibernate-failed"
    STOP_FAILED = "stop-failed"
    DESKTOP_DIED = "desktop-died"
    MISSING_PROGRAM = "missing-program"
    NO_SPACE = "no-space"
    UNSUPPORTED_TEMPLATE = "unsupported-template"
    IMAGE_NOT_FOUND = "image-not-found"
    IMAGE_DENIED = "image-denied"
    IMAGE_UNAVAILABLE = "image-unavailable"
    UNSCHEDULABLE = "unschedulable"
    QUOTA_EXCEEDED = "quota-exceeded"
    CRASH_LOOP = "crash-loop"
    OUT_OF_MEMORY = "out-of-memory"
    DEADLINE_EXCEEDED = "deadline-exceeded"
    CLUSTER_OFFLINE = "cluster-offline"
    CLUSTER_REVOKED = "cluster-revoked"
    CLUSTER_REMOVED = "cluster-removed"
    LOST = "lost"
    IDLE = "idle"
    MAX_DURATION = "max-duration"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> "Reason | None":
        return cls.OTHER if isinstance(value, str) else None


class ViewerRole(StrEnum):
    CONTROL = "control"
    VIEW = "view"


class Owner(Contract):
    user_id: UserIdText
    username: str


class SessionSpec(Contract):
    """All an agent needs to start a session; it reads templates from nowhere else."""

    session_id: SessionIdText
    owner: Owner
    template_id: TemplateIdText
    template_digest: str
    template_manifest: TemplateManifest
    resources: ResourceAmounts
    persistent_home: bool = True
    home: str = Field(description="Name of the user's home: the owner's slug and id digits.")
    env: dict[str, str] = Field(default_factory=dict)


class Session(Contract):
    """A session as API and events show it."""

    id: SessionIdText
    owner: Owner
    template_id: TemplateIdText
    template_name: str
    template_display_name: str
    template_digest: str
    cluster_id: ClusterIdText | None
    state: SessionState
    desired: DesiredState
    reason: Reason | None = None
    message: str | None = Field(default=None, description="The reason in words, with what to do.")
    generation: int = Field(ge=1)
    protocol: Protocol
    resources: ResourceAmounts
    persistent_home: bool = True
    phases: tuple[PhaseTiming, ...] = ()
    idle_timeout: int | None = Field(default=None, description="Seconds; null for never.")
    max_duration: int | None = Field(default=None, description="Seconds; null for no limit.")
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Timestamp | None = None
    terminated_at: Timestamp | None = None
    deadline: Timestamp | None = Field(
        default=None, description="When the current ...ing state ends at the latest."
    )
    last_activity_at: Timestamp | None = None
    version: int = Field(ge=1)


class SessionCommandState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    ACKNOWLEDGED = "acknowledged"
    COMPLETED = "completed"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


class CommandAttempt(Contract):
    """One sending of a command. `delivered_at` is when an agent was first seen to have it."""

    attempt: int = Field(ge=1)
    issued_at: Timestamp
    delivered_at: Timestamp | None = None
    acknowledged_at: Timestamp | None = None
    error: str | None = None


class SessionCommand(Contract):
    """One command's life; the times without an attempt's number are the newest attempt's.

    `pending`: no agent has it yet. `delivered`: the stream has handed it to an agent,
    which has not said so. `acknowledged`: an agent works on it.
    """

    id: CommandIdText
    session_id: SessionIdText
    generation: int
    action: str
    state: SessionCommandState
    attempt: int = 1
    actor: Actor
    error: str | None = None
    created_at: Timestamp
    issued_at: Timestamp | None = None
    delivered_at: Timestamp | None = None
    acknowledged_at: Timestamp | None = None
    completed_at: Timestamp | None = Field(
        default=None, description="When its life ended, in whichever way."
    )
    deadline: Timestamp
    superseded_by: CommandIdText | None = Field(
        default=None, description="The command that took its place before it had its effect."
    )
    attempts: tuple[CommandAttempt, ...] = Field(
        default=(), description="All sendings, the newest last."
    )
