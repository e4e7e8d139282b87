"""Events: what agents saw or did, and what the control plane decided.

Agents publish on `evt.<cluster>.session.<session>.<kind>`, the control plane on
`evt.core.<aggregate>.<id>.<kind>`. The last token of the subject is `KIND`.
`id` is the CloudEvents id and the `Nats-Msg-Id`; an agent derives it from what
happened, so that telling it twice stores it once.
"""

from typing import ClassVar

from pydantic import Field

from streamspace_common.contracts.base import Message, Timestamp
from streamspace_common.contracts.catalog import SyncCounts, TemplateManifest
from streamspace_common.contracts.clusters import Presence
from streamspace_common.contracts.dead_letters import DeadLetter
from streamspace_common.contracts.identity import Actor, User
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
    PhaseTiming,
    Reason,
    Session,
    SessionCommand,
    SessionState,
)
from streamspace_common.contracts.subjects import Aggregate, Subject, agent_event, core_event


class Event(Message):
    """Base of all events; `at` is the publisher's clock and decides nothing."""

    KIND: ClassVar[str]
    id: str = Field(min_length=1, max_length=160)
    at: Timestamp

    @property
    def subject(self) -> Subject:
        """Where this event is published."""
        raise NotImplementedError

    @property
    def about(self) -> str:
        """CloudEvents `subject`: the id of what the event is about."""
        raise NotImplementedError


class AgentEvent(Event):
    """An agent's report about one session and one generation of its commands."""

    cluster_id: ClusterIdText
    instance: str
    session_id: SessionIdText
    generation: int = Field(ge=1)
    command_id: CommandIdText | None = None

    @property
    def subject(self) -> Subject:
        return agent_event(self.cluster_id, self.session_id, self.KIND)

    @property
    def about(self) -> str:
        return self.session_id


class CommandReceived(AgentEvent):
    """An agent has taken the command and begins."""

    TYPE: ClassVar[str] = "session.command-received.v1"
    KIND: ClassVar[str] = "command_received"


class PhaseReached(AgentEvent):
    TYPE: ClassVar[str] = "session.phase-reached.v1"
    KIND: ClassVar[str] = "phase_reached"
    timing: PhaseTiming


class SessionStarted(AgentEvent):
    """The desktop answers; the session can be viewed. Follows a start and a wake."""

    TYPE: ClassVar[str] = "session.started.v1"
    KIND: ClassVar[str] = "started"
    phases: tuple[PhaseTiming, ...] = ()


class SessionHibernated(AgentEvent):
    TYPE: ClassVar[str] = "session.hibernated.v1"
    KIND: ClassVar[str] = "hibernated"


class SessionStopped(AgentEvent):
    """Nothing of the session is left but, perhaps, its home."""

    TYPE: ClassVar[str] = "session.stopped.v1"
    KIND: ClassVar[str] = "stopped"


class SessionFailed(AgentEvent):
    """A command gave up for good, or the desktop died by itself (`desktop-died`)."""

    TYPE: ClassVar[str] = "session.failed.v1"
    KIND: ClassVar[str] = "failed"
    reason: Reason
    message: str


class CommandExpired(AgentEvent):
    """The command arrived after its deadline and was not carried out."""

    TYPE: ClassVar[str] = "session.command-expired.v1"
    KIND: ClassVar[str] = "command_expired"


class CommandSuperseded(AgentEvent):
    """A newer generation was already known; the command was not carried out."""

    TYPE: ClassVar[str] = "session.command-superseded.v1"
    KIND: ClassVar[str] = "command_superseded"
    newer_generation: int


class CoreEvent(Event):
    """A decision of the control plane, with who caused it."""

    AGGREGATE: ClassVar[Aggregate]
    actor: Actor
    cause: str | None = Field(default=None, description="Id of the event or request behind it.")

    @property
    def subject(self) -> Subject:
        return core_event(self.AGGREGATE, self.about, self.KIND)


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


class ClusterPresenceChanged(_ClusterEvent):
    TYPE: ClassVar[str] = "cluster.presence-changed.v1"
    KIND: ClassVar[str] = "presence_changed"
    from_presence: Presence
    to_presence: Presence


AGENT_EVENTS: tuple[type[AgentEvent], ...] = (
    CommandReceived,
    PhaseReached,
    SessionStarted,
    SessionHibernated,
    SessionStopped,
    SessionFailed,
    CommandExpired,
    CommandSuperseded,
)
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
