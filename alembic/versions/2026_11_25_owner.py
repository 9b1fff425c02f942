"""Runs have owners, who see theirs and nobody else's."""

import sqlalchemy as sa
from alembic import op

revision = "app_0004"
down_revision = "app_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("action_runs", sa.Column("owner", sa.Text()))
    op.create_index(
        "ix_action_runs_owner_job_id",
        "action_runs",
        ["owner", "job_id"],
        postgresql_where=sa.text("owner IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_action_runs_owner_job_id", "action_runs")
    op.drop_column("action_runs", "owner")
