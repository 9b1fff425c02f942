"""The ledger: runs, their events and steps, and the triggers that keep a run in step with its job."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.engine.schema import run_sql

revision = "app_0001"
down_revision = None
branch_labels = ("app",)
depends_on = ("queue_03_04_00",)

ID = sa.Text(collation="C")
TIME = postgresql.TIMESTAMP(timezone=True)
JSONB = postgresql.JSONB(none_as_null=True)

# Unique without a retry loop: a sequence, multiplied by an odd number modulo 2^32 so that neighbours do not look alike.
# Within 2^32 ids none repeats, and by then the second has changed.
NEW_RUN_ID = """
CREATE SEQUENCE runledger_run_numbers;

CREATE FUNCTION runledger_new_run_id_v1() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT 'run_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISS"Z"')
        || '_' || lpad(to_hex((nextval('runledger_run_numbers') * 2654435761) & 4294967295), 8, '0')
$$;
"""

# What a job's row says, in the words of runs. The only place where the two vocabularies meet.
RUN_STATE = """
CREATE FUNCTION runledger_run_state_v1(
    status procrastinate_job_status, attempts integer, scheduled_at timestamptz, abort_requested boolean
) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE status
        WHEN 'todo' THEN CASE
            WHEN attempts > 0 THEN 'retrying'
            WHEN scheduled_at > now() THEN 'scheduled'
            ELSE 'queued' END
        WHEN 'doing' THEN 'running'
        WHEN 'succeeded' THEN 'succeeded'
        -- Procrastinate fails a job that was asked to abort while it was being retried.
        WHEN 'failed' THEN CASE WHEN abort_requested THEN 'cancelled' ELSE 'failed' END
        ELSE 'cancelled' END
$$;
"""

# What SQL may put into a job and Python cannot read: arguments that are no object, times beyond the year 9999.
READABLE = """
CREATE FUNCTION runledger_params_v1(args jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE jsonb_typeof(args) WHEN 'object' THEN args ELSE jsonb_build_object('args', args) END
$$;

CREATE FUNCTION runledger_time_v1(scheduled_at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN scheduled_at IS NOT NULL
                THEN least(greatest(scheduled_at, '2000-01-01T00:00:00Z'), '2999-12-31T00:00:00Z') END
$$;
"""

# Jobs that wait or run already get their runs now, as if they were inserted.
BACKFILL = """
WITH run AS (
    INSERT INTO action_runs (job_id, action, params, state, attempt, queue, priority, lock, schedule_at, worker_id)
    SELECT id, task_name, runledger_params_v1(args),
           runledger_run_state_v1(status, attempts, scheduled_at, abort_requested),
           CASE status WHEN 'doing' THEN attempts + 1 ELSE attempts END,
           queue_name, priority, lock, runledger_time_v1(scheduled_at), worker_id
      FROM procrastinate_jobs
     WHERE status IN ('todo', 'doing') AND position(':' IN task_name) = 0
     ORDER BY id
    RETURNING id, state
)
INSERT INTO run_events (run_id, seq, type, data)
SELECT id, 1, 'state', jsonb_build_object('state', state) FROM run;
"""

# A job that somebody deferred without a run gets one, except for tasks of a namespace ("builtin:…"),
# which have none. The first event of every run is written here, whoever inserted it.
JOBS_INSERTED = """
CREATE FUNCTION runledger_jobs_inserted_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO action_runs (job_id, action, params, state, queue, priority, lock, schedule_at)
    SELECT id, task_name, runledger_params_v1(args),
           runledger_run_state_v1(status, attempts, scheduled_at, abort_requested),
           queue_name, priority, lock, runledger_time_v1(scheduled_at)
      FROM inserted
     WHERE position(':' IN task_name) = 0
        ON CONFLICT (job_id) DO NOTHING;

    INSERT INTO run_events (run_id, seq, type, data)
    SELECT run.id, 1, 'state', jsonb_build_object('state', run.state)
      FROM inserted AS job
      JOIN action_runs AS run ON run.job_id = job.id;
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_jobs_inserted_v1
    AFTER INSERT ON procrastinate_jobs
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_jobs_inserted_v1();
"""

# Whatever changes a job, in whatever way, changes its run in the same transaction.
JOBS_UPDATED = """
CREATE FUNCTION runledger_jobs_updated_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH said AS (
        SELECT job.id AS job_id, job.status, job.attempts, job.queue_name, job.priority, job.lock,
               runledger_time_v1(job.scheduled_at) AS scheduled_at,
               job.worker_id, job.abort_requested,
               runledger_run_state_v1(job.status, job.attempts, job.scheduled_at, job.abort_requested) AS state
          FROM updated AS job
    ), due AS (
        SELECT run.id, said.state, said.queue_name, said.priority, said.lock, said.scheduled_at, said.worker_id,
               said.state IN ('succeeded', 'failed', 'cancelled') AS is_final,
               CASE said.state
                   WHEN 'running' THEN said.attempts + 1
                   -- A run that is cancelled while it waits has had no further attempt.
                   WHEN 'cancelled' THEN greatest(run.attempt, said.attempts)
                   ELSE said.attempts END AS attempt,
               CASE WHEN said.abort_requested THEN coalesce(run.cancel_requested_at, now())
                    WHEN said.status = 'todo' THEN NULL
                    ELSE run.cancel_requested_at END AS cancel_requested_at
          FROM said
          JOIN action_runs AS run ON run.job_id = said.job_id
    ), changed AS (
        UPDATE action_runs AS run
           SET state = due.state, attempt = due.attempt, queue = due.queue_name, priority = due.priority,
               lock = due.lock, schedule_at = due.scheduled_at, cancel_requested_at = due.cancel_requested_at,
               worker_id = coalesce(due.worker_id, run.worker_id),
               started_at = CASE WHEN due.state = 'running' AND run.state <> 'running' THEN now()
                                 ELSE run.started_at END,
               finished_at = CASE WHEN due.is_final THEN coalesce(run.finished_at, now()) END,
               last_seq = run.last_seq + 1
          FROM due
         WHERE run.id = due.id
           AND (run.state, run.attempt, run.queue, run.priority, run.lock, run.schedule_at, run.cancel_requested_at)
               IS DISTINCT FROM
               (due.state, due.attempt, due.queue_name, due.priority, due.lock, due.scheduled_at,
                due.cancel_requested_at)
        RETURNING run.id, run.last_seq, run.state, run.attempt, run.error, run.schedule_at, run.cancel_requested_at
    )
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT id, last_seq, 'state', jsonb_strip_nulls(jsonb_build_object(
               'state', state,
               'attempt', attempt,
               'schedule_at', CASE WHEN state IN ('scheduled', 'retrying') THEN schedule_at END,
               'cancel_requested', CASE WHEN state = 'running' AND cancel_requested_at IS NOT NULL THEN true END,
               'error', CASE WHEN state IN ('failed', 'retrying') THEN error END))
      FROM changed;

    -- Upstream rings for new jobs only: also ring for what was put back, and for those that wait for a lock.
    PERFORM pg_notify(channel, '{"type": "job_inserted", "job_id": 0}')
       FROM (SELECT DISTINCT unnest(ARRAY['procrastinate_any_queue_v1', 'procrastinate_queue_v1#' || queue_name])
               FROM updated
              WHERE (status = 'todo' AND coalesce(scheduled_at <= now(), true))
                 OR (status NOT IN ('todo', 'doing') AND lock IS NOT NULL)) AS bells (channel);
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_jobs_updated_v1
    AFTER UPDATE ON procrastinate_jobs
    REFERENCING NEW TABLE AS updated
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_jobs_updated_v1();
"""

# A job that is deleted before it ended can never end by itself.
JOBS_DELETED = """
CREATE FUNCTION runledger_jobs_deleted_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH changed AS (
        UPDATE action_runs AS run
           SET state = 'cancelled', finished_at = now(), last_seq = run.last_seq + 1,
               error = jsonb_build_object('type', '/problems/job-deleted', 'title', 'The job was deleted',
                                          'detail', 'Its Procrastinate job was deleted before it ended.')
          FROM deleted
         WHERE run.job_id = deleted.id AND run.finished_at IS NULL
        RETURNING run.id, run.last_seq, run.state, run.attempt, run.error
    )
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT id, last_seq, 'state', jsonb_build_object('state', state, 'attempt', attempt, 'error', error)
      FROM changed;
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_jobs_deleted_v1
    AFTER DELETE ON procrastinate_jobs
    REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_jobs_deleted_v1();
"""

# The bell that watchers listen for: one NOTIFY a statement, naming the runs, or "*" for too many to name.
EVENTS_INSERTED = """
CREATE FUNCTION runledger_events_inserted_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('runledger_events', CASE WHEN count(*) > 100 THEN '*' ELSE string_agg(run_id, ' ') END)
       FROM (SELECT DISTINCT run_id FROM inserted) AS runs
     HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_events_inserted_v1
    AFTER INSERT ON run_events
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_events_inserted_v1();
"""


def upgrade() -> None:
    run_sql(NEW_RUN_ID)
    create_tables()
    for script in (RUN_STATE, READABLE, BACKFILL, JOBS_INSERTED, JOBS_UPDATED, JOBS_DELETED, EVENTS_INSERTED):
        run_sql(script)


def create_tables() -> None:
    op.create_table(
        "action_runs",
        sa.Column("id", ID, server_default=sa.text("runledger_new_run_id_v1()"), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("params", JSONB, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.Integer()),
        sa.Column("crashes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("progress", JSONB),
        sa.Column("result", JSONB),
        sa.Column("error", JSONB),
        sa.Column("traceback", sa.Text()),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("lock", sa.Text()),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("schedule_at", TIME),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("cancel_requested_at", TIME),
        sa.Column("worker_id", sa.BigInteger()),
        sa.Column("parent_id", ID),
        sa.Column("replay_of", ID),
        sa.Column("trace_context", JSONB),
        sa.Column("last_seq", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_action_runs"),
        sa.UniqueConstraint("job_id", name="uq_action_runs_job_id"),
        sa.CheckConstraint(
            "state IN ('scheduled', 'queued', 'running', 'retrying', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_action_runs_state"),
        ),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))",
            name=op.f("ck_action_runs_finished_at"),
        ),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index("ix_action_runs_action_job_id", "action_runs", ["action", "job_id"])
    op.create_index("ix_action_runs_state_job_id", "action_runs", ["state", "job_id"])
    op.create_index(
        "ix_action_runs_tags",
        "action_runs",
        ["tags"],
        postgresql_using="gin",
        postgresql_where=sa.text("tags <> '{}'"),
    )
    op.create_table(
        "run_events",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "seq", name="pk_run_events"),
        sa.CheckConstraint("type IN ('state', 'progress', 'log', 'step')", name=op.f("ck_run_events_type")),
    )
    op.create_table(
        "run_steps",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("result", JSONB),
        sa.Column("finished_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "name", name="pk_run_steps"),
        sa.ForeignKeyConstraint(["run_id"], ["action_runs.id"], name="fk_run_steps_run_id", ondelete="CASCADE"),
    )


def downgrade() -> None:
    for trigger in ("jobs_inserted", "jobs_updated", "jobs_deleted"):
        op.execute(f"DROP TRIGGER runledger_{trigger}_v1 ON procrastinate_jobs")
        op.execute(f"DROP FUNCTION runledger_{trigger}_v1()")
    op.drop_table("run_steps")
    op.drop_table("run_events")
    op.drop_table("action_runs")
    op.execute("DROP FUNCTION runledger_events_inserted_v1()")
    op.execute("DROP FUNCTION runledger_run_state_v1(procrastinate_job_status, integer, timestamptz, boolean)")
    op.execute("DROP FUNCTION runledger_params_v1(jsonb)")
    op.execute("DROP FUNCTION runledger_time_v1(timestamptz)")
    op.execute("DROP FUNCTION runledger_new_run_id_v1()")
    op.execute("DROP SEQUENCE runledger_run_numbers")
