"""Clusters that take no new sessions, ended sessions by their age, tickets with a trace."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clusters", sa.Column("drained_at", sa.DateTime(timezone=True)))
    op.add_column("clusters", sa.Column("drained_by", sa.Text))
    op.add_column("tickets", sa.Column("traceparent", sa.Text))
    op.create_index(
        "ix_sessions_ended", "sessions", ["updated_at"],
        postgresql_where=sa.text("state IN ('terminated', 'failed')"),
    )  # fmt: skip


def downgrade() -> None:
    op.drop_index("ix_sessions_ended")
    op.drop_column("tickets", "traceparent")
    op.drop_column("clusters", "drained_by")
    op.drop_column("clusters", "drained_at")
