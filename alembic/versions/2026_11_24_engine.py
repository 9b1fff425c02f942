"""The engine: what claiming and ending in batches needs.

Indexes that make a claim's cost independent of what waits, is scheduled or has ended; triggers a statement in the
place of Procrastinate's triggers a row, with the same meaning.
"""

import sqlalchemy as sa
from alembic import op

from app.engine.schema import run_sql

revision = "app_0002"
down_revision = "app_0001"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True)

# A job waits under one of these: ready (no lock), locked, or scheduled. A claim reads a few entries of each, and orders
# by ~priority, which no index of Procrastinate's offers: those hold what ended or is scheduled, too, and may tempt the
# planner to read all of that.
INDEXES = """
CREATE INDEX runledger_jobs_ready_v1 ON procrastinate_jobs (queue_name, (~priority), id)
    WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL;
CREATE INDEX runledger_jobs_locked_v1 ON procrastinate_jobs (queue_name, lock)
    WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NOT NULL;
CREATE INDEX runledger_jobs_lock_head_v1 ON procrastinate_jobs (lock, (~priority), id)
    WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NOT NULL;
CREATE INDEX runledger_jobs_scheduled_v1 ON procrastinate_jobs (scheduled_at)
    WHERE status = 'todo' AND scheduled_at IS NOT NULL;
"""

# No index of the runs names a column that a successful run changes, so its two changes rewrite the row on its page and
# no index (a heap-only update). Runs that wait or run are found by their jobs, those in trouble by a column of theirs.
RUN_INDEXES = """
DROP INDEX ix_action_runs_state_job_id;
ALTER TABLE action_runs ADD COLUMN trouble text GENERATED ALWAYS AS (
    CASE WHEN state IN ('retrying', 'failed', 'cancelled') THEN state END) STORED;
CREATE INDEX ix_action_runs_trouble_job_id ON action_runs (trouble, job_id) WHERE trouble IS NOT NULL;
ALTER TABLE action_runs SET (fillfactor = 50);
"""

# Deleting a worker's row sets the worker of its jobs to NULL. Procrastinate's index has the running ones only, which
# that update cannot use: it would read every job that ever was. A job that has ended has no worker.
WORKER_INDEX = """
UPDATE procrastinate_jobs SET worker_id = NULL WHERE worker_id IS NOT NULL AND status <> 'doing';
DROP INDEX idx_procrastinate_jobs_worker_not_null;
CREATE INDEX idx_procrastinate_jobs_worker_not_null ON procrastinate_jobs (worker_id) WHERE worker_id IS NOT NULL;
"""
UPSTREAM_WORKER_INDEX = """
DROP INDEX idx_procrastinate_jobs_worker_not_null;
CREATE INDEX idx_procrastinate_jobs_worker_not_null ON procrastinate_jobs (worker_id)
    WHERE worker_id IS NOT NULL AND status = 'doing'::procrastinate_job_status;
"""

# These tables change all the time and are read at their newest end: clean them early and without pauses.
STORAGE = """
ALTER TABLE procrastinate_jobs SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE action_runs SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
"""
UPSTREAM_STORAGE = """
ALTER TABLE procrastinate_jobs RESET (
    autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor, autovacuum_vacuum_cost_delay);
ALTER TABLE action_runs RESET (
    autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor, autovacuum_vacuum_cost_delay);
"""

PREVIOUS_RUN_INDEXES = """
DROP INDEX ix_action_runs_trouble_job_id;
ALTER TABLE action_runs DROP COLUMN trouble;
CREATE INDEX ix_action_runs_state_job_id ON action_runs (state, job_id);
ALTER TABLE action_runs SET (fillfactor = 70);
"""

# Procrastinate's triggers for each row, whose work ours do for each statement. They stay, disabled.
ROW_TRIGGERS = (
    "procrastinate_jobs_notify_queue_job_inserted_v1",
    "procrastinate_jobs_notify_queue_job_aborted_v1",
    "procrastinate_trigger_status_events_insert_v1",
    "procrastinate_trigger_status_events_update_v1",
    "procrastinate_trigger_scheduled_events_v1",
    "procrastinate_trigger_abort_requested_events_v1",
)

# A job that somebody deferred without a run gets one, except for tasks of a namespace ("builtin:…"),
# which have none. The first event of every run is written here, whoever inserted it.
JOBS_INSERTED = """
CREATE FUNCTION runledger_jobs_inserted_v2() RETURNS trigger LANGUAGE plpgsql AS $$
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

    INSERT INTO procrastinate_events (job_id, type, at)
    SELECT id, 'deferred'::procrastinate_job_event_type, now() FROM inserted WHERE status = 'todo'
     UNION ALL
    SELECT id, 'scheduled', scheduled_at FROM inserted WHERE status = 'todo' AND scheduled_at IS NOT NULL;

    PERFORM runledger_ring_v1(array_agg(DISTINCT queue_name), 'job_inserted', min(id))
       FROM inserted WHERE status = 'todo';
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_jobs_inserted_v2
    AFTER INSERT ON procrastinate_jobs
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_jobs_inserted_v2();
"""

# Procrastinate's two channels and its payload; one notification a queue, however many jobs.
RING = """
CREATE FUNCTION runledger_ring_v1(queue_names text[], what text, job_id bigint) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify(channel, json_build_object('type', what, 'job_id', job_id)::text)
      FROM (SELECT 'procrastinate_any_queue_v1' WHERE queue_names IS NOT NULL
             UNION ALL
            SELECT 'procrastinate_queue_v1#' || name FROM unnest(queue_names) AS name) AS bells (channel)
$$;
"""

# Whatever changes a job, in whatever way, changes its run in the same transaction. The engine's own statements have
# changed the run already, and there is nothing left to do.
JOBS_UPDATED = """
CREATE FUNCTION runledger_jobs_updated_v2() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    asked record;
BEGIN
    INSERT INTO procrastinate_events (job_id, type, at)
    SELECT job.id, told.type, told.at
      FROM updated AS job
      JOIN before USING (id)
      CROSS JOIN LATERAL (
        SELECT CASE
                   WHEN before.status = 'todo' AND job.status = 'doing' THEN 'started'
                   WHEN before.status = 'doing' AND job.status = 'todo' THEN 'deferred_for_retry'
                   WHEN before.status = 'doing' AND job.status IN ('failed', 'succeeded', 'aborted')
                       THEN job.status::text
                   WHEN before.status = 'todo' AND job.status IN ('cancelled', 'failed', 'succeeded') THEN 'cancelled'
                   WHEN before.status = 'failed' AND job.status = 'todo' THEN 'retried'
               END::procrastinate_job_event_type AS type, now() AS at
         WHERE before.status <> job.status
         UNION ALL
        SELECT 'scheduled', job.scheduled_at
         WHERE job.status = 'todo' AND job.scheduled_at IS DISTINCT FROM before.scheduled_at
         UNION ALL
        SELECT 'abort_requested', now() WHERE job.abort_requested AND NOT before.abort_requested
      ) AS told
     WHERE told.type IS NOT NULL AND told.at IS NOT NULL;

    IF current_setting('runledger.keeps_ledger', true) IS DISTINCT FROM 'on' THEN
    WITH said AS (
        SELECT job.id AS job_id, job.status, job.attempts, job.queue_name, job.priority, job.lock,
               runledger_time_v1(job.scheduled_at) AS scheduled_at,
               job.worker_id, job.abort_requested,
               runledger_run_state_v1(job.status, job.attempts, job.scheduled_at, job.abort_requested) AS state
          FROM updated AS job
    ), due AS (
        SELECT run.id, said.state, said.queue_name, said.priority, said.lock, said.worker_id,
               -- A job whose time has come waits without a time; its run goes on to tell which that was.
               CASE WHEN said.scheduled_at IS NULL AND run.schedule_at <= now() THEN run.schedule_at
                    ELSE said.scheduled_at END AS scheduled_at,
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
    END IF;

    -- For what was put back, for those that wait for a lock, and for the timers of those that wait for a time.
    PERFORM runledger_ring_v1(array_agg(DISTINCT queue_name), 'job_inserted', 0)
       FROM updated
      WHERE status = 'todo' OR (status <> 'doing' AND lock IS NOT NULL);

    FOR asked IN
        SELECT job.id, job.queue_name FROM updated AS job JOIN before USING (id)
         WHERE job.status = 'doing' AND job.abort_requested AND NOT before.abort_requested
    LOOP
        PERFORM runledger_ring_v1(ARRAY[asked.queue_name], 'abort_job_requested', asked.id);
    END LOOP;
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_jobs_updated_v2
    AFTER UPDATE ON procrastinate_jobs
    REFERENCING OLD TABLE AS before NEW TABLE AS updated
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_jobs_updated_v2();
"""

PREVIOUS_TRIGGERS = """
CREATE TRIGGER runledger_jobs_inserted_v1
    AFTER INSERT ON procrastinate_jobs
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_jobs_inserted_v1();
CREATE TRIGGER runledger_jobs_updated_v1
    AFTER UPDATE ON procrastinate_jobs
    REFERENCING NEW TABLE AS updated
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_jobs_updated_v1();
"""


def upgrade() -> None:
    op.add_column("action_runs", sa.Column("steps", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.execute("UPDATE action_runs SET steps = 1 WHERE EXISTS (SELECT FROM run_steps WHERE run_id = action_runs.id)")
    op.add_column("action_runs", sa.Column("start_deadline", TIME))
    run_sql(WORKER_INDEX)
    run_sql(INDEXES)
    run_sql(RUN_INDEXES)
    run_sql(STORAGE)
    for trigger in ROW_TRIGGERS:
        op.execute(f"ALTER TABLE procrastinate_jobs DISABLE TRIGGER {trigger}")
    for trigger in ("jobs_inserted", "jobs_updated"):
        op.execute(f"DROP TRIGGER runledger_{trigger}_v1 ON procrastinate_jobs")
    for script in (RING, JOBS_INSERTED, JOBS_UPDATED):
        run_sql(script)


def downgrade() -> None:
    for trigger in ("jobs_inserted", "jobs_updated"):
        op.execute(f"DROP TRIGGER runledger_{trigger}_v2 ON procrastinate_jobs")
        op.execute(f"DROP FUNCTION runledger_{trigger}_v2()")
    op.execute("DROP FUNCTION runledger_ring_v1(text[], text, bigint)")
    for trigger in ROW_TRIGGERS:
        op.execute(f"ALTER TABLE procrastinate_jobs ENABLE TRIGGER {trigger}")
    run_sql(PREVIOUS_TRIGGERS)
    run_sql(UPSTREAM_STORAGE)
    for index in ("ready", "locked", "lock_head", "scheduled"):
        op.execute(f"DROP INDEX runledger_jobs_{index}_v1")
    run_sql(UPSTREAM_WORKER_INDEX)
    run_sql(PREVIOUS_RUN_INDEXES)
    op.drop_column("action_runs", "start_deadline")
    op.drop_column("action_runs", "steps")
