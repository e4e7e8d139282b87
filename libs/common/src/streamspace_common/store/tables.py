"""The tables every service with a database has, as models and for its first migration.

A service's `0001` migration calls `add_outbox(op)` and, where it consumes, `add_inbox(op)`.
"""

from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

OUTBOX_CHANNEL = "outbox"
"""The LISTEN/NOTIFY channel that says: there is something to publish."""


class Operations(Protocol):
    """The part of `alembic.op` used here."""

    def create_table(self, table_name: str, *columns: Any, **options: Any) -> Any: ...
    def create_index(self, index_name: str, table_name: str, columns: Any) -> None: ...
    def execute(self, sqltext: str) -> None: ...


class StoreModel(SQLModel):
    """Base of the tables below; their metadata is apart from a service's own."""

    metadata = MetaData()


class OutboxRow(StoreModel, table=True):
    """A message to be published, written in the transaction it tells of."""

    __tablename__ = "outbox"
    id: int | None = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    msg_id: str = Field(sa_type=Text)
    subject: str = Field(sa_type=Text)
    headers: dict[str, str] = Field(sa_column=Column(JSONB, nullable=False))
    payload: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    key: str | None = Field(default=None, sa_type=Text)
    """Of commands: the session. Only the newest generation of a key is worth publishing."""
    generation: int | None = Field(default=None, sa_type=BigInteger)
    attempt: int | None = Field(default=None, sa_type=BigInteger)
    created_at: datetime | None = Field(
        default=None,
        sa_column=Column(
            DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()
        ),
    )


class CommandSequence(StoreModel, table=True):
    """The newest command of a subject that was stored, and where its stream keeps it."""

    __tablename__ = "command_sequences"
    subject: str = Field(sa_column=Column(Text, primary_key=True))
    sequence: int = Field(sa_type=BigInteger)
    generation: int = Field(sa_type=BigInteger)
    attempt: int = Field(sa_type=BigInteger)
    stored_at: datetime | None = Field(
        default=None,
        sa_column=Column(
            DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()
        ),
    )


class InboxRow(StoreModel, table=True):
    """A message whose effect is in the database."""

    __tablename__ = "inbox"
    __table_args__ = (Index("ix_inbox_received_at", "received_at"),)
    consumer: str = Field(sa_column=Column(Text, primary_key=True))
    msg_id: str = Field(sa_column=Column(Text, primary_key=True))
    received_at: datetime | None = Field(
        default=None,
        sa_column=Column(
            DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()
        ),
    )


def add_outbox(op: Operations) -> None:
    """Create `outbox`, `command_sequences` and the trigger that wakes the relay.

    The trigger spares each transaction the round trip of its own NOTIFY.
    """
    op.create_table(
        "outbox",
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("msg_id", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("key", Text),
        Column("generation", BigInteger),
        Column("attempt", BigInteger),
        Column(
            "created_at",
            DateTime(timezone=True),
            nullable=False,
            server_default=func.clock_timestamp(),
        ),
    )
    op.create_table(
        "command_sequences",
        Column("subject", Text, primary_key=True),
        Column("sequence", BigInteger, nullable=False),
        Column("generation", BigInteger, nullable=False),
        Column("attempt", BigInteger, nullable=False),
        Column(
            "stored_at",
            DateTime(timezone=True),
            nullable=False,
            server_default=func.clock_timestamp(),
        ),
    )
    op.execute(
        "CREATE FUNCTION notify_outbox() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN PERFORM pg_notify('{OUTBOX_CHANNEL}', ''); RETURN NULL; END $$"
    )
    op.execute(
        "CREATE TRIGGER outbox_written AFTER INSERT ON outbox "
        "FOR EACH STATEMENT EXECUTE FUNCTION notify_outbox()"
    )


def add_inbox(op: Operations) -> None:
    """Create `inbox`."""
    op.create_table(
        "inbox",
        Column("consumer", Text, primary_key=True),
        Column("msg_id", Text, primary_key=True),
        Column(
            "received_at",
            DateTime(timezone=True),
            nullable=False,
            server_default=func.clock_timestamp(),
        ),
    )
    op.create_index("ix_inbox_received_at", "inbox", ["received_at"])
