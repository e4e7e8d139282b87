"""Sessions, commands, clusters, templates, tickets, and the outbox and inbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from streamspace_common.store.tables import add_inbox, add_outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ACTIVE = "state NOT IN ('terminated', 'failed')"


def upgrade() -> None:
    _sessions()
    _commands()
    _clusters()
    _templates()
    _requests()
    add_outbox(op)
    add_inbox(op)


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner_id", sa.Text, nullable=False),
        sa.Column("owner_name", sa.Text, nullable=False),
        sa.Column("template_id", sa.Text, nullable=False),
        sa.Column("template_name", sa.Text, nullable=False),
        sa.Column("template_display_name", sa.Text, nullable=False),
        sa.Column("template_digest", sa.Text, nullable=False),
        sa.Column("cluster_id", sa.Text),
        sa.Column("wanted_cluster", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("desired", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("command_id", sa.Text, nullable=False),
        sa.Column("protocol", sa.Text, nullable=False),
        sa.Column("resources", JSONB, nullable=False),
        sa.Column("cpu_milli", sa.BigInteger, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("persistent_home", sa.Boolean, nullable=False),
        sa.Column("phases", JSONB, nullable=False),
        sa.Column("idle_timeout", sa.Integer),
        sa.Column("max_duration", sa.Integer),
        sa.Column("restarts", sa.Integer, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("terminated_at", TIME),
        sa.Column("deadline", TIME),
        sa.Column("last_activity_at", TIME),
        sa.Column("idle_at", TIME),
        sa.Column("ends_at", TIME),
        sa.Column("version", sa.BigInteger, nullable=False),
        # Rows change often while a session lives: room for new versions on their page.
        postgresql_with={"fillfactor": "70"},
    )
    newest = [sa.text("created_at DESC"), sa.text("id DESC")]
    op.create_index("ix_sessions_newest", "sessions", newest)
    op.create_index("ix_sessions_owner_newest", "sessions", ["owner_id", *newest])
    op.create_index(
        "ix_sessions_cluster_active", "sessions", ["cluster_id"], postgresql_where=sa.text(ACTIVE)
    )
    op.create_index(
        "ix_sessions_deadline",
        "sessions",
        ["deadline"],
        postgresql_where=sa.text("deadline IS NOT NULL"),
    )
    op.create_index(
        "ix_sessions_idle",
        "sessions",
        ["idle_at"],
        postgresql_where=sa.text("idle_at IS NOT NULL AND state = 'running'"),
    )
    op.create_index(
        "ix_sessions_ends",
        "sessions",
        ["ends_at"],
        postgresql_where=sa.text(f"ends_at IS NOT NULL AND {ACTIVE}"),
    )
    op.create_index(
        "ix_sessions_unplaced",
        "sessions",
        ["created_at"],
        postgresql_where=sa.text("cluster_id IS NULL AND state = 'pending'"),
    )
    op.create_index(
        "ix_sessions_template_active",
        "sessions",
        ["template_id", "template_digest"],
        postgresql_where=sa.text(ACTIVE),
    )
    op.create_table(
        "usage",
        sa.Column("owner_id", sa.Text, primary_key=True),
        sa.Column("sessions", sa.BigInteger, nullable=False),
        sa.Column("cpu_milli", sa.BigInteger, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
    )


def _commands() -> None:
    op.create_table(
        "commands",
        # Unique over all sessions: message ids are made of it.
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("cluster_id", sa.Text),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("actor", JSONB, nullable=False),
        sa.Column("delete_home", sa.Boolean, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("acknowledged_at", TIME),
        sa.Column("completed_at", TIME),
        sa.Column("deadline", TIME, nullable=False),
    )
    op.create_index("ix_commands_session", "commands", ["session_id", sa.text("generation DESC")])
    op.create_index(
        "ix_commands_waiting",
        "commands",
        ["cluster_id", "issued_at"],
        postgresql_where=sa.text("state = 'pending'"),
    )


def _clusters() -> None:
    op.create_table(
        "clusters",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("presence", sa.Text, nullable=False),
        sa.Column("runtime", sa.Text),
        sa.Column("agent_version", sa.Text),
        sa.Column("architecture", sa.Text),
        sa.Column("capacity", JSONB),
        sa.Column("labels", JSONB, nullable=False),
        sa.Column("trouble", sa.Text),
        sa.Column("running_sessions", sa.Integer, nullable=False),
        sa.Column("agents", sa.Integer, nullable=False),
        sa.Column("reserved_sessions", sa.BigInteger, nullable=False),
        sa.Column("reserved_cpu_milli", sa.BigInteger, nullable=False),
        sa.Column("reserved_memory", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        # Every placement counts on it.
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "agents",
        sa.Column("cluster_id", sa.Text, primary_key=True),
        sa.Column("instance", sa.Text, primary_key=True),
        sa.Column("heartbeat", JSONB, nullable=False),
        sa.Column("heard_at", TIME, nullable=False),
        postgresql_with={"fillfactor": "50"},
    )


def _templates() -> None:
    op.create_table(
        "templates",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("catalog_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("unusable", sa.Text),
        sa.Column("withdrawn", sa.Boolean, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_templates_name", "templates", ["name"])
    op.create_table(
        "manifests",
        sa.Column("template_id", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("manifest", JSONB, nullable=False),
    )


def _requests() -> None:
    op.create_table(
        "tickets",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("used_at", TIME),
    )
    op.create_index("ix_tickets_session_user", "tickets", ["session_id", "user_id"])
    op.create_table(
        "idempotency",
        sa.Column("owner_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("request_hash", sa.LargeBinary, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("command_id", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("ix_idempotency_created", "idempotency", ["created_at"])


def downgrade() -> None:
    raise NotImplementedError("restore a backup; history is not thrown away by a migration")
