"""Control: queues that are paused, limits at the claim, what workers say of themselves, schedules of callers.

A claim walks the lines of limited jobs as it walks those of locked ones, so those jobs leave the index of what is ready.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.engine.schema import run_sql

revision = "app_0007"
down_revision = "app_0006"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True)
JSONB = postgresql.JSONB(none_as_null=True)
TEXTS = postgresql.ARRAY(sa.Text())

# The key that a job's limit counts by: its task, and what a parameter says if the limit is by that parameter. It is
# stored in the job, so that what waits for one key is a line of its own, and what runs of it is counted by index.
LIMITED_JOBS = """
ALTER TABLE procrastinate_jobs ADD COLUMN limit_key text;

CREATE FUNCTION runledger_limit_key_v1(task_name text, by_param text, args jsonb) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN by_param IS NULL THEN task_name
                WHEN length(args ->> by_param) > 100 THEN task_name || ':' || md5(args ->> by_param)
                ELSE task_name || ':' || coalesce(args ->> by_param, '') END
$$;

CREATE INDEX runledger_jobs_ready_v2 ON procrastinate_jobs (queue_name, (~priority), id)
    WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NULL;
DROP INDEX runledger_jobs_ready_v1;
CREATE INDEX runledger_jobs_limited_v1 ON procrastinate_jobs (queue_name, limit_key, (~priority), id)
    WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NOT NULL;
CREATE INDEX runledger_jobs_running_limited_v1 ON procrastinate_jobs (limit_key)
    WHERE status = 'doing' AND limit_key IS NOT NULL;
"""
UNLIMITED_JOBS = """
DROP INDEX runledger_jobs_running_limited_v1;
DROP INDEX runledger_jobs_limited_v1;
DROP INDEX runledger_jobs_ready_v2;
CREATE INDEX runledger_jobs_ready_v1 ON procrastinate_jobs (queue_name, (~priority), id)
    WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL;
DROP FUNCTION runledger_limit_key_v1(text, text, jsonb);
ALTER TABLE procrastinate_jobs DROP COLUMN limit_key;
"""

# Whoever inserts a job of a limited task, by whatever way. Where no task is limited, this looks at one empty table.
JOBS_LIMITED = """
CREATE FUNCTION runledger_jobs_limited_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM limits) AND EXISTS (SELECT FROM inserted JOIN limits USING (task_name)) THEN
        UPDATE procrastinate_jobs AS job
           SET limit_key = runledger_limit_key_v1(job.task_name, limits.by_param, job.args)
          FROM limits
         WHERE job.id = ANY (ARRAY(SELECT id FROM inserted)) AND limits.task_name = job.task_name;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_jobs_limited_v1
    AFTER INSERT ON procrastinate_jobs
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_jobs_limited_v1();
"""

# What a schedule is called: as its creator has called it, or after the task that the code schedules.
SCHEDULE_NAME = """
CREATE FUNCTION runledger_schedule_name_v1(task_name text, periodic_id text, is_created boolean) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN is_created THEN periodic_id
                WHEN periodic_id = '' THEN task_name
                ELSE task_name || ':' || periodic_id END
$$;
"""

# Which failures are alike: the action, the type of the problem, and what it says without numbers, ids and quoted values.
FINGERPRINT = """
CREATE FUNCTION runledger_fingerprint_v1(action text, error jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT md5(concat_ws(E'\\n', action, error ->> 'type', error ->> 'title',
                         regexp_replace(left(error ->> 'detail', 300),
                                        '"[^"]*"|''[^'']*''|[0-9a-zA-Z_-]*[0-9][0-9a-zA-Z_-]*', '#', 'g')))
$$;

ALTER TABLE action_runs ADD COLUMN discarded_at timestamptz;
ALTER TABLE action_runs ADD COLUMN fingerprint text GENERATED ALWAYS AS (
    CASE WHEN state = 'failed' AND coalesce(discarded_at < finished_at, true)
         THEN runledger_fingerprint_v1(action, error) END) STORED;
CREATE INDEX ix_action_runs_fingerprint_job_id ON action_runs (fingerprint, job_id) WHERE fingerprint IS NOT NULL;
"""


def upgrade() -> None:
    op.create_table(
        "queue_pauses",
        sa.Column("queue_name", sa.Text(), nullable=False),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("paused_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("resume_at", TIME),
        sa.PrimaryKeyConstraint("queue_name", name="pk_queue_pauses"),
    )
    op.create_table(
        "limits",
        sa.Column("task_name", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.Integer()),
        sa.Column("seconds_a_start", sa.Double()),
        sa.Column("burst", sa.Integer()),
        sa.Column("by_param", sa.Text()),
        sa.Column("is_adopted", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("task_name", name="pk_limits"),
    )
    op.create_table(
        "limit_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("full_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_limit_keys"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("queues", TEXTS),
        sa.Column("actions", TEXTS, nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("started_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    for column in (
        sa.Column("params", JSONB),
        sa.Column("missed", JSONB),
        sa.Column("owner", sa.Text()),
        sa.Column("created_by", sa.Text()),
        sa.Column("paused_at", TIME),
        sa.Column("paused_by", sa.Text()),
    ):
        op.add_column("schedules", column)
    op.create_index(
        "ix_schedules_periodic_id",
        "schedules",
        ["periodic_id"],
        unique=True,
        postgresql_where=sa.text("params IS NOT NULL"),
    )
    for script in (LIMITED_JOBS, JOBS_LIMITED, SCHEDULE_NAME, FINGERPRINT):
        run_sql(script)


def downgrade() -> None:
    op.drop_index("ix_action_runs_fingerprint_job_id", "action_runs")
    op.drop_column("action_runs", "fingerprint")
    op.drop_column("action_runs", "discarded_at")
    op.execute("DROP FUNCTION runledger_fingerprint_v1(text, jsonb)")
    op.execute("DROP TRIGGER runledger_jobs_limited_v1 ON procrastinate_jobs")
    op.execute("DROP FUNCTION runledger_jobs_limited_v1()")
    run_sql(UNLIMITED_JOBS)
    op.execute("DROP FUNCTION runledger_schedule_name_v1(text, text, boolean)")
    op.execute("DELETE FROM schedules WHERE params IS NOT NULL")
    op.drop_index("ix_schedules_periodic_id", "schedules")
    for column in ("params", "missed", "owner", "created_by", "paused_at", "paused_by"):
        op.drop_column("schedules", column)
    for table in ("workers", "limit_keys", "limits", "queue_pauses"):
        op.drop_table(table)
