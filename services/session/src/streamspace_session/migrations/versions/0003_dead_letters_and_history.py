"""Dead letters, sessions' history, and all attempts of a command."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("commands", sa.Column("delivered_at", TIME))
    op.add_column("commands", sa.Column("superseded_by", sa.Text))
    op.add_column(
        "commands", sa.Column("earlier", JSONB, nullable=False, server_default=sa.text("'[]'"))
    )
    _dead_letters()
    _history()


def _dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("cluster_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("command_id", sa.Text),
        sa.Column("generation", sa.BigInteger),
        sa.Column("attempt", sa.Integer),
        sa.Column("action", sa.Text),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("origin_stream", sa.Text, nullable=False),
        sa.Column("origin_sequence", sa.BigInteger),
        sa.Column("deliveries", sa.Integer),
        sa.Column("consumer", sa.Text),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("died_at", TIME, nullable=False),
        sa.Column("moved_at", TIME),
        sa.Column("settled_at", TIME),
        sa.Column("settled_by", JSONB),
        sa.Column("retried_as", sa.Text),
    )
    newest = [sa.text("died_at DESC"), sa.text("id DESC")]
    op.create_index("ix_dead_letters_newest", "dead_letters", ["state", *newest])
    op.create_index("ix_dead_letters_session", "dead_letters", ["session_id"])
    op.create_index(
        "ix_dead_letters_origin", "dead_letters", ["origin_sequence"],
        postgresql_where=sa.text("origin_sequence IS NOT NULL"),
    )  # fmt: skip
    op.create_index(
        "ix_dead_letters_unmoved", "dead_letters", ["died_at"],
        postgresql_where=sa.text("moved_at IS NULL"),
    )  # fmt: skip


def _history() -> None:
    op.create_table(
        "session_history",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("trace_id", sa.Text),
        # The event as it was published. Text, so that it is exactly that.
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_index("ix_session_history_session", "session_history", ["session_id", "id"])
    op.create_index("ix_session_history_at", "session_history", ["at"])


def downgrade() -> None:
    raise NotImplementedError("restore a backup; history is not thrown away by a migration")
