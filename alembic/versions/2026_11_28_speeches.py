"""A speech is kept here until the storage has it: it was paid for, and the storage may be down."""

import sqlalchemy as sa
from alembic import op

revision = "app_0020"
down_revision = "app_0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "adventure_speeches",
        sa.Column("run_id", sa.Text(collation="C"), nullable=False),
        sa.Column("audio", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_adventure_speeches"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["action_runs.id"], name="fk_adventure_speeches_run_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("adventure_speeches")
