"""Schedules: which tick of each was the last."""

import sqlalchemy as sa
from alembic import op

revision = "app_0003"
down_revision = "app_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("task_name", sa.Text(), nullable=False),
        sa.Column("periodic_id", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("last_tick", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("task_name", "periodic_id", name="pk_schedules"),
    )


def downgrade() -> None:
    op.drop_table("schedules")
