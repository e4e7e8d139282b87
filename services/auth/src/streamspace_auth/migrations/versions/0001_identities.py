"""Users, failed logins, refresh tokens, signing keys, clusters, and the outbox.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

from streamspace_common.store.tables import add_outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("username", sa.Text, nullable=False),
        # Collation C: the order of pages must not depend on the server's locale.
        sa.Column("username_key", sa.Text(collation="C"), nullable=False),
        sa.Column("display_name", sa.Text),
        sa.Column("email", sa.Text),
        sa.Column("email_key", sa.Text),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("password_changed_at", _MOMENT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.Column("last_login_at", _MOMENT),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("username_key", name="users_username_key"),
        sa.UniqueConstraint("email_key", name="users_email_key"),
        sa.CheckConstraint("role IN ('admin', 'operator', 'user')", name="users_role"),
    )
    op.create_table(
        "login_failures",
        sa.Column("account_key", sa.Text, primary_key=True),
        sa.Column("failed_at", sa.ARRAY(_MOMENT), nullable=False),
        sa.Column("last_failed_at", _MOMENT, nullable=False),
    )
    op.create_index("ix_login_failures_last_failed_at", "login_failures", ["last_failed_at"])
    op.create_table(
        "refresh_families",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.Text, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("revoked_at", _MOMENT),
    )
    op.create_index("ix_refresh_families_user_id", "refresh_families", ["user_id"])
    op.create_index("ix_refresh_families_expires_at", "refresh_families", ["expires_at"])
    op.create_table(
        "refresh_tokens",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column(
            "family_id",
            sa.Uuid,
            sa.ForeignKey("refresh_families.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("issued_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("rotated_at", _MOMENT),
    )
    op.create_index("ix_refresh_tokens_family_id", "refresh_tokens", ["family_id"])
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.Text, primary_key=True),
        sa.Column("sealed_private", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("active_from", _MOMENT, nullable=False),
    )
    op.create_table(
        "clusters",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("credential", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("enrolled_at", _MOMENT, nullable=False),
    )
    add_outbox(op)


def downgrade() -> None:
    for table in (
        "refresh_tokens",
        "refresh_families",
        "users",
        "login_failures",
        "signing_keys",
        "clusters",
        "command_sequences",
        "outbox",
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION notify_outbox")
