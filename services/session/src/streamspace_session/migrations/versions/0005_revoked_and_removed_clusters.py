"""Clusters whose access was revoked, and those that were removed.

`access_sequence` is the place in the event stream of what is known of a cluster's access;
of a removed one only that is kept, so that older news does not bring it back.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clusters", sa.Column("revoked_at", sa.DateTime(timezone=True)))
    op.add_column(
        "clusters",
        sa.Column("access_sequence", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "removed_clusters",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("access_sequence", sa.BigInteger, nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("removed_clusters")
    op.drop_column("clusters", "access_sequence")
    op.drop_column("clusters", "revoked_at")
