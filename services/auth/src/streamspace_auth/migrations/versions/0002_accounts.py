"""An account of the bus for each cluster, and the tokens that servers are given.

Clusters enrolled before have none: they are enrolled again.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clusters", sa.Column("account", sa.Text))
    op.add_column("clusters", sa.Column("agents_key", sa.Text))
    op.add_column("clusters", sa.Column("sealed_agents_seed", sa.LargeBinary))
    op.add_column("clusters", sa.Column("revoked_at", sa.DateTime(timezone=True)))
    op.create_table(
        "bus_accounts",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("token", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("bus_accounts")
    for column in ("revoked_at", "sealed_agents_seed", "agents_key", "account"):
        op.drop_column("clusters", column)
