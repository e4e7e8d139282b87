"""The rows of the session database. What they mean is said in `domain` and `ports`."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, MetaData, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel


class Row(SQLModel):
    """Base of this service's tables; their metadata is apart from anybody else's."""

    metadata = MetaData()


def _text(*, primary: bool = False, nullable: bool = False) -> Any:
    return Column(Text, primary_key=primary, nullable=nullable and not primary)


def _time(*, nullable: bool = False) -> Any:
    return Column(DateTime(timezone=True), nullable=nullable)


def _json() -> Any:
    return Column(JSONB, nullable=False)


def _big() -> Any:
    return Column(BigInteger, nullable=False)


class SessionRow(Row, table=True):
    """`idle_at` and `ends_at` are when its idle time and its longest duration are over."""

    __tablename__ = "sessions"
    id: str = Field(sa_column=_text(primary=True))
    owner_id: str = Field(sa_column=_text())
    owner_name: str = Field(sa_column=_text())
    template_id: str = Field(sa_column=_text())
    template_name: str = Field(sa_column=_text())
    template_display_name: str = Field(sa_column=_text())
    template_digest: str = Field(sa_column=_text())
    cluster_id: str | None = Field(sa_column=_text(nullable=True))
    wanted_cluster: str | None = Field(sa_column=_text(nullable=True))
    state: str = Field(sa_column=_text())
    desired: str = Field(sa_column=_text())
    reason: str | None = Field(sa_column=_text(nullable=True))
    message: str | None = Field(sa_column=_text(nullable=True))
    generation: int = Field(sa_column=_big())
    command_id: str = Field(sa_column=_text())
    protocol: str = Field(sa_column=_text())
    resources: dict[str, Any] = Field(sa_column=_json())
    cpu_milli: int = Field(sa_column=_big())
    memory_bytes: int = Field(sa_column=_big())
    persistent_home: bool
    phases: list[dict[str, Any]] = Field(sa_column=_json())
    idle_timeout: int | None
    max_duration: int | None
    restarts: int
    created_at: datetime = Field(sa_column=_time())
    updated_at: datetime = Field(sa_column=_time())
    since: datetime = Field(sa_column=_time())
    started_at: datetime | None = Field(sa_column=_time(nullable=True))
    terminated_at: datetime | None = Field(sa_column=_time(nullable=True))
    deadline: datetime | None = Field(sa_column=_time(nullable=True))
    last_activity_at: datetime | None = Field(sa_column=_time(nullable=True))
    idle_at: datetime | None = Field(sa_column=_time(nullable=True))
    ends_at: datetime | None = Field(sa_column=_time(nullable=True))
    version: int = Field(sa_column=_big())


class CommandRow(Row, table=True):
    """A stop of a resource that belongs to no session has no session row."""

    __tablename__ = "commands"
    id: str = Field(sa_column=_text(primary=True))
    session_id: str = Field(sa_column=_text())
    cluster_id: str | None = Field(sa_column=_text(nullable=True))
    generation: int = Field(sa_column=_big())
    action: str = Field(sa_column=_text())
    state: str = Field(sa_column=_text())
    attempt: int
    actor: dict[str, Any] = Field(sa_column=_json())
    delete_home: bool
    error: str | None = Field(sa_column=_text(nullable=True))
    created_at: datetime = Field(sa_column=_time())
    issued_at: datetime = Field(sa_column=_time())
    delivered_at: datetime | None = Field(sa_column=_time(nullable=True))
    acknowledged_at: datetime | None = Field(sa_column=_time(nullable=True))
    completed_at: datetime | None = Field(sa_column=_time(nullable=True))
    deadline: datetime = Field(sa_column=_time())
    superseded_by: str | None = Field(sa_column=_text(nullable=True))
    earlier: list[dict[str, Any]] = Field(sa_column=_json())


class DeadLetterRow(Row, table=True):
    """`moved_at` is when its copy went to the dead letter stream."""

    __tablename__ = "dead_letters"
    id: str = Field(sa_column=_text(primary=True))
    cluster_id: str = Field(sa_column=_text())
    session_id: str = Field(sa_column=_text())
    command_id: str | None = Field(sa_column=_text(nullable=True))
    generation: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    attempt: int | None
    action: str | None = Field(sa_column=_text(nullable=True))
    cause: str = Field(sa_column=_text())
    reason: str = Field(sa_column=_text())
    origin_stream: str = Field(sa_column=_text())
    origin_sequence: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    deliveries: int | None
    consumer: str | None = Field(sa_column=_text(nullable=True))
    headers: dict[str, str] = Field(sa_column=_json())
    payload: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    state: str = Field(sa_column=_text())
    died_at: datetime = Field(sa_column=_time())
    moved_at: datetime | None = Field(sa_column=_time(nullable=True))
    settled_at: datetime | None = Field(sa_column=_time(nullable=True))
    settled_by: dict[str, Any] | None = Field(sa_column=Column(JSONB(none_as_null=True)))
    retried_as: str | None = Field(sa_column=_text(nullable=True))


class HistoryRow(Row, table=True):
    """One event of a session, as it was published, in the order of its session."""

    __tablename__ = "session_history"
    id: int = Field(sa_column=Column(BigInteger, primary_key=True))
    session_id: str = Field(sa_column=_text())
    event_id: str = Field(sa_column=_text())
    type: str = Field(sa_column=_text())
    at: datetime = Field(sa_column=_time())
    trace_id: str | None = Field(sa_column=_text(nullable=True))
    payload: str = Field(sa_column=_text())


class UsageRow(Row, table=True):
    """What a user holds; its row lock orders those who count."""

    __tablename__ = "usage"
    owner_id: str = Field(sa_column=_text(primary=True))
    sessions: int = Field(sa_column=_big())
    cpu_milli: int = Field(sa_column=_big())
    memory_bytes: int = Field(sa_column=_big())


class ClusterRow(Row, table=True):
    """`drained_at` is since when an operator wants no new sessions there.

    `revoked_at` is since when its agents are not let in, `access_sequence` the place in the
    event stream of what is known of that.
    """

    __tablename__ = "clusters"
    id: str = Field(sa_column=_text(primary=True))
    name: str = Field(sa_column=_text())
    presence: str = Field(sa_column=_text())
    runtime: str | None = Field(sa_column=_text(nullable=True))
    agent_version: str | None = Field(sa_column=_text(nullable=True))
    architecture: str | None = Field(sa_column=_text(nullable=True))
    capacity: dict[str, Any] | None = Field(sa_column=Column(JSONB(none_as_null=True)))
    labels: dict[str, Any] = Field(sa_column=_json())
    trouble: str | None = Field(sa_column=_text(nullable=True))
    running_sessions: int
    agents: int
    reserved_sessions: int = Field(sa_column=_big())
    reserved_cpu_milli: int = Field(sa_column=_big())
    reserved_memory: int = Field(sa_column=_big())
    last_seen_at: datetime | None = Field(sa_column=_time(nullable=True))
    drained_at: datetime | None = Field(sa_column=_time(nullable=True))
    drained_by: str | None = Field(sa_column=_text(nullable=True))
    revoked_at: datetime | None = Field(default=None, sa_column=_time(nullable=True))
    access_sequence: int = Field(default=0, sa_column=_big())
    created_at: datetime = Field(sa_column=_time())
    version: int = Field(sa_column=_big())


class RemovedClusterRow(Row, table=True):
    """What is left of a removed cluster: the place in the event stream of its removal."""

    __tablename__ = "removed_clusters"
    id: str = Field(sa_column=_text(primary=True))
    access_sequence: int = Field(sa_column=_big())
    removed_at: datetime = Field(sa_column=_time())


class AgentRow(Row, table=True):
    """The last heartbeat of one agent, and when we took note of it."""

    __tablename__ = "agents"
    cluster_id: str = Field(sa_column=_text(primary=True))
    instance: str = Field(sa_column=_text(primary=True))
    heartbeat: dict[str, Any] = Field(sa_column=_json())
    heard_at: datetime = Field(sa_column=_time())


class TemplateRow(Row, table=True):
    """`sequence` is the place in the event stream of what is known of it."""

    __tablename__ = "templates"
    id: str = Field(sa_column=_text(primary=True))
    catalog_id: str = Field(sa_column=_text())
    name: str = Field(sa_column=_text())
    digest: str = Field(sa_column=_text())
    unusable: str | None = Field(sa_column=_text(nullable=True))
    withdrawn: bool
    sequence: int = Field(sa_column=_big())


class ManifestRow(Row, table=True):
    """A manifest is kept while it is its template's newest or a session was started from it."""

    __tablename__ = "manifests"
    template_id: str = Field(sa_column=_text(primary=True))
    digest: str = Field(sa_column=_text(primary=True))
    manifest: dict[str, Any] = Field(sa_column=_json())


class TicketRow(Row, table=True):
    """Only the SHA-256 of a ticket is kept."""

    __tablename__ = "tickets"
    digest: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    session_id: str = Field(sa_column=_text())
    user_id: str = Field(sa_column=_text())
    username: str = Field(sa_column=_text())
    role: str = Field(sa_column=_text())
    expires_at: datetime = Field(sa_column=_time())
    used_at: datetime | None = Field(sa_column=_time(nullable=True))
    traceparent: str | None = Field(sa_column=_text(nullable=True))


class AccountRow(Row, table=True):
    """What is known of a user's account; `sequence` is the event's place in the stream."""

    __tablename__ = "accounts"
    user_id: str = Field(sa_column=_text(primary=True))
    disabled: bool
    sequence: int = Field(sa_column=_big())


class IdempotencyRow(Row, table=True):
    __tablename__ = "idempotency"
    owner_id: str = Field(sa_column=_text(primary=True))
    key: str = Field(sa_column=_text(primary=True))
    request_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    session_id: str | None = Field(sa_column=_text(nullable=True))
    command_id: str | None = Field(sa_column=_text(nullable=True))
    created_at: datetime = Field(sa_column=_time())
