"""Catalogs, their templates, what the last sync made of each file, and the outbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from streamspace_common.store.tables import add_outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "catalogs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("branch", sa.Text),
        sa.Column("origin", sa.Text, nullable=False, unique=True),
        sa.Column("built_in", sa.Boolean, nullable=False),
        sa.Column("sealed_token", sa.LargeBinary),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("commit", sa.Text),
        sa.Column("rules", sa.Text),
        sa.Column("template_count", sa.Integer, nullable=False),
        sa.Column("counts", JSONB, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("last_sync_at", _time),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("requested_by", JSONB),
        sa.Column("requested_at", _time),
        sa.Column("due_at", _time, nullable=False),
        sa.Column("claim", sa.Text),
        sa.Column("claimed_at", _time),
        sa.Column("claimed_until", _time),
    )
    catalog = sa.ForeignKey("catalogs.id", ondelete="CASCADE")
    op.create_table(
        "templates",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("catalog_id", sa.Text, catalog, nullable=False),
        # Byte order, so that pages by key agree with what Python sorts.
        sa.Column("sort_name", sa.Text(collation="C"), nullable=False),
        sa.Column("searched", sa.Text, nullable=False),
        sa.Column("categories", ARRAY(sa.Text), nullable=False),
        sa.Column("category_keys", ARRAY(sa.Text), nullable=False),
        sa.Column("tag_keys", ARRAY(sa.Text), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("commit", sa.Text),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("unusable", sa.Text),
        sa.Column("summary", JSONB, nullable=False),
        sa.Column("manifest", JSONB, nullable=False),
        sa.Column("updated_at", _time, nullable=False),
        sa.Column("published_at", _time, nullable=False),
    )
    op.create_index("ix_templates_order", "templates", ["sort_name", "id"])
    op.create_index("ix_templates_catalog", "templates", ["catalog_id"])
    op.create_index("ix_templates_published_at", "templates", ["published_at"])
    op.create_table(
        "file_reports",
        sa.Column(
            "catalog_id",
            sa.Text,
            sa.ForeignKey("catalogs.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("template_id", sa.Text),
        sa.Column("reasons", ARRAY(sa.Text), nullable=False),
    )
    add_outbox(op)


def downgrade() -> None:
    raise NotImplementedError("restore a backup to go back")
