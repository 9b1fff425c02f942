"""Keys that make a submission safe to send again, and runs unique; lists of a queue's and of a tag's runs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "app_0008"
down_revision = "app_0007"
branch_labels = None
depends_on = None

TIME = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_table(
        "unique_runs",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("job_id", sa.BigInteger()),
        sa.PrimaryKeyConstraint("owner", "action", "key", name="pk_unique_runs"),
    )
    op.create_index("ix_unique_runs_job_id", "unique_runs", ["job_id"])
    # Without those of the default queue: they are most, and cost nothing so.
    op.create_index(
        "ix_action_runs_queue_job_id",
        "action_runs",
        ["queue", "job_id"],
        postgresql_where=sa.text("queue <> 'default'"),
    )
    # Ordered, which the index of arrays is not: the newest runs of a tag are read, and not all of them.
    op.create_table(
        "run_tags",
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("tag", "job_id", name="pk_run_tags"),
    )
    op.execute("INSERT INTO run_tags (tag, job_id) SELECT DISTINCT unnest(tags), job_id FROM action_runs")
    op.drop_index("ix_action_runs_tags", "action_runs")


def downgrade() -> None:
    op.create_index(
        "ix_action_runs_tags",
        "action_runs",
        ["tags"],
        postgresql_using="gin",
        postgresql_where=sa.text("tags <> '{}'"),
    )
    op.drop_table("run_tags")
    op.drop_index("ix_action_runs_queue_job_id", "action_runs")
    op.drop_table("unique_runs")
    op.drop_table("idempotency_keys")
