"""Submitting: the statement that stores runs writes their first events itself; start deadlines are found by index."""

import sqlalchemy as sa
from alembic import op

from app.engine.schema import run_sql

revision = "app_0005"
down_revision = "app_0004"
branch_labels = None
depends_on = None

# As v2, except that a statement which has written the runs and their events says so, and there is nothing left to do.
JOBS_INSERTED = """
CREATE FUNCTION runledger_jobs_inserted_v3() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('runledger.keeps_ledger', true) IS DISTINCT FROM 'on' THEN
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
    END IF;

    INSERT INTO procrastinate_events (job_id, type, at)
    SELECT id, 'deferred'::procrastinate_job_event_type, now() FROM inserted WHERE status = 'todo'
     UNION ALL
    SELECT id, 'scheduled', scheduled_at FROM inserted WHERE status = 'todo' AND scheduled_at IS NOT NULL;

    PERFORM runledger_ring_v1(array_agg(DISTINCT queue_name), 'job_inserted', min(id))
       FROM inserted WHERE status = 'todo';
    RETURN NULL;
END $$;
"""

TRIGGER = """
DROP TRIGGER runledger_jobs_inserted_{old} ON procrastinate_jobs;
CREATE TRIGGER runledger_jobs_inserted_{new}
    AFTER INSERT ON procrastinate_jobs
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_jobs_inserted_{new}();
"""


def upgrade() -> None:
    # Few runs have one, and it never changes: a sweep reads those of the last hour, not every run that waits.
    op.create_index(
        "ix_action_runs_start_deadline",
        "action_runs",
        ["start_deadline"],
        postgresql_where=sa.text("start_deadline IS NOT NULL"),
    )
    run_sql(JOBS_INSERTED)
    run_sql(TRIGGER.format(old="v2", new="v3"))


def downgrade() -> None:
    run_sql(TRIGGER.format(old="v3", new="v2"))
    op.execute("DROP FUNCTION runledger_jobs_inserted_v3()")
    op.drop_index("ix_action_runs_start_deadline", "action_runs")
