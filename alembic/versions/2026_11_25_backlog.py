"""The backlog: what a sheet says, the scores that follow from it, and what kind of work each item is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "app_0012"
down_revision = "app_0011"
branch_labels = None
depends_on = None

NUMBERS = (
    "reach",
    "impact",
    "confidence",
    "effort",
    "value",
    "time_criticality",
    "risk_reduction",
    "job_size",
    "rice",
    "wsjf",
)


def upgrade() -> None:
    op.create_table(
        "backlog_items",
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Double()) for name in NUMBERS),
        sa.Column("category", sa.Text()),
        *(
            sa.Column(name, postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False)
            for name in ("created_at", "updated_at")
        ),
        sa.PrimaryKeyConstraint("key", name="pk_backlog_items"),
    )
    op.create_index(
        "ix_backlog_items_unclassified", "backlog_items", ["key"], postgresql_where=sa.text("category IS NULL")
    )


def downgrade() -> None:
    op.drop_table("backlog_items")
