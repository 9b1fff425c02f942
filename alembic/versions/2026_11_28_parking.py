"""Parking is fenced by the claim, too: an attempt that was given back is claimed again under the same number."""

from alembic import op

from app.engine.schema import run_sql

revision = "app_0019"
down_revision = "app_0018"
branch_labels = None
depends_on = None

# As v1, of the claim that the run was given at.
PARK = """
CREATE FUNCTION runledger_park_job_v2(
    held_job bigint, held_by bigint, attempts_made integer, claimed_at timestamptz, keeps_queueing_lock boolean)
RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    waiting text := (SELECT id FROM action_runs WHERE action_runs.job_id = held_job);
    wait run_waits;
BEGIN
    PERFORM runledger_lock_wait_v1(waiting);
    SELECT * INTO wait FROM run_waits WHERE run_id = waiting;
    UPDATE procrastinate_jobs AS job
       SET status = CASE WHEN job.abort_requested THEN 'aborted' ELSE 'todo' END::procrastinate_job_status,
           scheduled_at = CASE WHEN wait.run_id IS NOT NULL AND NOT job.abort_requested
                               THEN coalesce(wait.until, '2999-12-31T00:00:00Z') END,
           queueing_lock = CASE WHEN keeps_queueing_lock THEN job.queueing_lock END,
           worker_id = NULL,
           abort_requested = false
     WHERE job.id = held_job AND job.status = 'doing' AND job.worker_id = held_by AND job.attempts = attempts_made
       AND claimed_at = (SELECT started_at FROM action_runs WHERE id = waiting);
    IF FOUND THEN
        RETURN NEXT held_job;
        -- It has started in time.
        UPDATE action_runs SET start_deadline = NULL WHERE id = waiting AND start_deadline IS NOT NULL;
        -- The trigger on the jobs has told a time. What it waits for is more to the point.
        UPDATE run_events AS event
           SET data = event.data - 'schedule_at' || jsonb_build_object('waits_for', jsonb_strip_nulls(jsonb_build_object(
                   'signal', wait.signal, 'until', wait.until,
                   'children', (SELECT nullif(count(*), 0) FROM run_children
                                 WHERE parent_id = waiting AND is_awaited))))
          FROM action_runs AS run
         WHERE run.id = waiting AND event.run_id = run.id AND event.seq = run.last_seq
           AND event.data ? 'schedule_at' AND wait.run_id IS NOT NULL;
    END IF;
END $$;
"""


def upgrade() -> None:
    # v1 stays for the workers of the version before, as long as they run beside those of this one.
    run_sql(PARK)


def downgrade() -> None:
    op.execute("DROP FUNCTION runledger_park_job_v2(bigint, bigint, integer, timestamptz, boolean)")
