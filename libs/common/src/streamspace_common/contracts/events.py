"""Events: what agents saw or did, and what the control plane decided.

`event_base` says what they share, `agent_events` holds the agents' ones; here stand the
control plane's, and the table that finds an event by its type name.
"""

from typing import ClassVar

from pydantic import Field

from streamspace_common.contracts.agent_events import (
    AGENT_EVENTS,
    CommandExpired,
    CommandReceived,
    CommandSuperseded,
    PhaseReached,
    SessionFailed,
    SessionHibernated,
    SessionStarted,
    SessionStopped,
)
from streamspace_common.contracts.catalog import SyncCounts, TemplateManifest
from streamspace_common.contracts.clusters import Presence
from streamspace_common.contracts.dead_letters import DeadLetter
from streamspace_common.contracts.event_base import AgentEvent, CoreEvent, Event
from streamspace_common.contracts.identity import User
from streamspace_common.contracts.ids import (
    CatalogIdText,
    ClusterIdText,
    CommandIdText,
    SessionIdText,
    TemplateIdText,
    UserIdText,
)
from streamspace_common.contracts.sessions import (
    DesiredState,
    Reason,
    Session,
    SessionCommand,
    SessionState,
)
from streamspace_common.contracts.subjects import Aggregate

__all__ = [
    "AGENT_EVENTS",
    "CORE_EVENTS",
    "EVENT_TYPES",
    "SESSION_HISTORY",
    "AgentEvent",
    "CatalogAdded",
    "CatalogRemoved",
    "CatalogSyncFailed",
    "CatalogSynced",
    "ClusterDrained",
    "ClusterEnrolled",
    "ClusterPresenceChanged",
    "ClusterRemoved",
    "ClusterRevoked",
    "ClusterUndrained",
    "CommandDied",
    "CommandExpired",
    "CommandReceived",
    "CommandSuperseded",
    "CoreEvent",
    "DeadLetterDiscarded",
    "DeadLetterRetried",
    "Event",
    "PhaseReached",
    "RefreshTokenReused",
    "SessionActivity",
    "SessionCommandChanged",
    "SessionCreated",
    "SessionFailed",
    "SessionHibernated",
    "SessionStarted",
    "SessionStateChanged",
    "SessionStopped",
    "TemplatePublished",
    "TemplateWithdrawn",
    "UnknownEventError",
    "UserChanged",
    "UserCreated",
    "UserSignedIn",
    "UserSignedOut",
    "parse_event",
]


class _SessionEvent(CoreEvent):
    AGGREGATE: ClassVar[Aggregate] = Aggregate.SESSION
    session_id: SessionIdText
    owner_id: UserIdText

    @property
    def about(self) -> str:
        return self.session_id


class SessionCreated(_SessionEvent):
    TYPE: ClassVar[str] = "session.created.v1"
    KIND: ClassVar[str] = "created"
    session: Session
    command_id: CommandIdText
    command: SessionCommand | None = Field(default=None, description="The first command.")


class SessionStateChanged(_SessionEvent):
    """The session after the change, with the state before it.

    `command` is its newest command as the change left it, `replaced` the older one that
    it took the place of.
    """

    TYPE: ClassVar[str] = "session.state-changed.v1"
    KIND: ClassVar[str] = "state_changed"
    from_state: SessionState
    to_state: SessionState
    desired: DesiredState
    reason: Reason | None = None
    message: str | None = None
    generation: int
    command_id: CommandIdText | None = None
    session: Session
    command: SessionCommand | None = None
    replaced: SessionCommand | None = None


class SessionCommandChanged(_SessionEvent):
    """A command's life went on without a change of its session's state."""

    TYPE: ClassVar[str] = "session.command-changed.v1"
    KIND: ClassVar[str] = "command_changed"
    command: SessionCommand
    replaced: SessionCommand | None = None
    session: Session


class _DeadLetterEvent(CoreEvent):
    """`owner_id` is null for a resource that belonged to no session."""

    AGGREGATE: ClassVar[Aggregate] = Aggregate.SESSION
    session_id: SessionIdText
    owner_id: UserIdText | None = None
    letter: DeadLetter

    @property
    def about(self) -> str:
        return self.session_id


class CommandDied(_DeadLetterEvent):
    """A command gave up and was moved to the dead letters."""

    TYPE: ClassVar[str] = "session.command-died.v1"
    KIND: ClassVar[str] = "command_died"


class DeadLetterRetried(_DeadLetterEvent):
    TYPE: ClassVar[str] = "session.dead-letter-retried.v1"
    KIND: ClassVar[str] = "dead_letter_retried"


class DeadLetterDiscarded(_DeadLetterEvent):
    TYPE: ClassVar[str] = "session.dead-letter-discarded.v1"
    KIND: ClassVar[str] = "dead_letter_discarded"


class SessionActivity(_SessionEvent):
    """Seen at the relay: who watches, and how long ago somebody really typed or clicked."""

    TYPE: ClassVar[str] = "session.activity.v1"
    KIND: ClassVar[str] = "activity"
    viewers: int = Field(ge=0)
    idle_seconds: float | None = Field(
        default=None,
        ge=0,
        description="Since the last real input of any viewer; null for none yet.",
    )
    bytes_to_viewers: int = Field(ge=0, description="Since this relay's previous report.")
    bytes_from_viewers: int = Field(ge=0, description="Since this relay's previous report.")


class TemplatePublished(CoreEvent):
    """A template is new, or changed; carries the manifest sessions start from."""

    AGGREGATE: ClassVar[Aggregate] = Aggregate.TEMPLATE
    TYPE: ClassVar[str] = "template.published.v1"
    KIND: ClassVar[str] = "published"
    template_id: TemplateIdText
    catalog_id: CatalogIdText
    name: str
    digest: str
    manifest: TemplateManifest
    unusable: str | None = None

    @property
    def about(self) -> str:
        return self.template_id


class TemplateWithdrawn(CoreEvent):
    AGGREGATE: ClassVar[Aggregate] = Aggregate.TEMPLATE
    TYPE: ClassVar[str] = "template.withdrawn.v1"
    KIND: ClassVar[str] = "withdrawn"
    template_id: TemplateIdText
    catalog_id: CatalogIdText

    @property
    def about(self) -> str:
        return self.template_id


class _CatalogEvent(CoreEvent):
    AGGREGATE: ClassVar[Aggregate] = Aggregate.CATALOG
    catalog_id: CatalogIdText

    @property
    def about(self) -> str:
        return self.catalog_id


class CatalogAdded(_CatalogEvent):
    TYPE: ClassVar[str] = "catalog.added.v1"
    KIND: ClassVar[str] = "added"
    name: str
    url: str


class CatalogRemoved(_CatalogEvent):
    TYPE: ClassVar[str] = "catalog.removed.v1"
    KIND: ClassVar[str] = "removed"


class CatalogSynced(_CatalogEvent):
    TYPE: ClassVar[str] = "catalog.synced.v1"
    KIND: ClassVar[str] = "synced"
    commit: str | None
    counts: SyncCounts


class CatalogSyncFailed(_CatalogEvent):
    TYPE: ClassVar[str] = "catalog.sync-failed.v1"
    KIND: ClassVar[str] = "sync_failed"
    error: str


class _UserEvent(CoreEvent):
    AGGREGATE: ClassVar[Aggregate] = Aggregate.USER
    user_id: UserIdText

    @property
    def about(self) -> str:
        return self.user_id


class UserCreated(_UserEvent):
    TYPE: ClassVar[str] = "user.created.v1"
    KIND: ClassVar[str] = "created"
    user: User


class UserChanged(_UserEvent):
    """Also when a user is disabled or enabled, or a password was set (never the password)."""

    TYPE: ClassVar[str] = "user.changed.v1"
    KIND: ClassVar[str] = "changed"
    user: User
    changed: tuple[str, ...] = ()


class UserSignedIn(_UserEvent):
    TYPE: ClassVar[str] = "user.signed-in.v1"
    KIND: ClassVar[str] = "signed_in"


class UserSignedOut(_UserEvent):
    TYPE: ClassVar[str] = "user.signed-out.v1"
    KIND: ClassVar[str] = "signed_out"


class RefreshTokenReused(_UserEvent):
    """A spent refresh token came again: its whole family was revoked."""

    TYPE: ClassVar[str] = "user.refresh-token-reused.v1"
    KIND: ClassVar[str] = "refresh_token_reused"


class _ClusterEvent(CoreEvent):
    AGGREGATE: ClassVar[Aggregate] = Aggregate.CLUSTER
    cluster_id: ClusterIdText

    @property
    def about(self) -> str:
        return self.cluster_id


class ClusterEnrolled(_ClusterEvent):
    TYPE: ClassVar[str] = "cluster.enrolled.v1"
    KIND: ClassVar[str] = "enrolled"
    name: str
    replaced: bool = Field(
        default=False, description="It was enrolled before; what it had until now is revoked."
    )


class ClusterRevoked(_ClusterEvent):
    """None of its agents is let in any more, until it is enrolled again."""

    TYPE: ClassVar[str] = "cluster.revoked.v1"
    KIND: ClassVar[str] = "revoked"


class ClusterRemoved(_ClusterEvent):
    """It is gone for good: its sessions end, and one enrolled by its name later is another one."""

    TYPE: ClassVar[str] = "cluster.removed.v1"
    KIND: ClassVar[str] = "removed"


class ClusterDrained(_ClusterEvent):
    """Somebody asked for it: no new sessions there until `cluster.undrained.v1`."""

    TYPE: ClassVar[str] = "cluster.drained.v1"
    KIND: ClassVar[str] = "drained"
    hibernate: bool = Field(default=False, description="Its running sessions were put to rest.")


class ClusterUndrained(_ClusterEvent):
    TYPE: ClassVar[str] = "cluster.undrained.v1"
    KIND: ClassVar[str] = "undrained"


class ClusterPresenceChanged(_ClusterEvent):
    TYPE: ClassVar[str] = "cluster.presence-changed.v1"
    KIND: ClassVar[str] = "presence_changed"
    from_presence: Presence
    to_presence: Presence


CORE_EVENTS: tuple[type[CoreEvent], ...] = (
    SessionCreated,
    SessionStateChanged,
    SessionCommandChanged,
    CommandDied,
    DeadLetterRetried,
    DeadLetterDiscarded,
    SessionActivity,
    TemplatePublished,
    TemplateWithdrawn,
    CatalogAdded,
    CatalogRemoved,
    CatalogSynced,
    CatalogSyncFailed,
    UserCreated,
    UserChanged,
    UserSignedIn,
    UserSignedOut,
    RefreshTokenReused,
    ClusterEnrolled,
    ClusterDrained,
    ClusterUndrained,
    ClusterRevoked,
    ClusterRemoved,
    ClusterPresenceChanged,
)
SESSION_HISTORY: tuple[type[CoreEvent], ...] = (
    SessionCreated,
    SessionStateChanged,
    SessionCommandChanged,
    CommandDied,
    DeadLetterRetried,
    DeadLetterDiscarded,
)
"""What a session's history is made of: all that the session service decides of it."""
EVENT_TYPES: dict[str, type[Event]] = {event.TYPE: event for event in (*AGENT_EVENTS, *CORE_EVENTS)}


class UnknownEventError(ValueError):
    """The type name is not one this version knows; a reader skips such events."""


def parse_event(type_name: str, payload: bytes) -> Event:
    """Read an event by the type name its `ce-type` header gave.

    Raises:
        UnknownEventError: this version does not know the type.
        pydantic.ValidationError: the payload is not of that type's shape.
    """
    try:
        model = EVENT_TYPES[type_name]
    except KeyError as error:
        raise UnknownEventError(f"unknown event type: {type_name!r}") from error
    return model.from_json(payload)
