"""Runs that wait without a worker: for their children, and for signals.

No wake-up can be lost. Whoever notes that a run waits, parks its job, or brings what it waits for, does so under one
lock of that run; and what is brought is brought in the transaction that ends the child, or stores the signal.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.engine.schema import run_sql

revision = "app_0010"
down_revision = "app_0009"
branch_labels = None
depends_on = None

ID = sa.Text(collation="C")
TIME = postgresql.TIMESTAMP(timezone=True)

# Not a row's lock: a run's row is locked by whoever ends it, and the ends of parents and children come in batches, in
# any order.
LOCK = """
CREATE FUNCTION runledger_lock_wait_v1(run_id text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('runledger.wait:' || run_id, 0))
$$;
"""

# A job that is not parked yet is left alone: when it is to be parked, nothing will be there to wait for.
WAKE = """
CREATE FUNCTION runledger_wake_v1(job_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kept text := current_setting('runledger.keeps_ledger', true);
BEGIN
    -- Whoever wakes them may keep the ledger of what it does itself; of these jobs the trigger on the jobs keeps it.
    PERFORM set_config('runledger.keeps_ledger', 'off', true);
    UPDATE procrastinate_jobs SET scheduled_at = NULL
     WHERE id = ANY (job_ids) AND status = 'todo' AND scheduled_at IS NOT NULL;
    PERFORM set_config('runledger.keeps_ledger', coalesce(kept, ''), true);
END $$;
"""

# Puts a held job back until what its run waits for has come, its attempt given back; if that has come, or somebody has
# asked for it to stop, at once. The year 2999 is also named in app/runs/schemas.
PARK = """
CREATE FUNCTION runledger_park_job_v1(held_job bigint, held_by bigint, attempts_made integer, keeps_queueing_lock boolean)
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
     WHERE job.id = held_job AND job.status = 'doing' AND job.worker_id = held_by AND job.attempts = attempts_made;
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

# Whoever ends a run inserts its last event, so here every end is seen, in the transaction that makes it. The action
# that is submitted here is also named in app/runs/children.py.
RUNS_ENDED = """
CREATE FUNCTION runledger_runs_ended_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kept text := current_setting('runledger.keeps_ledger', true);
    ended text[];
    brought text[];
    failing text[];
    woken bigint[];
BEGIN
    -- All that it costs while no run has had a child, and none waits.
    IF NOT EXISTS (SELECT FROM run_children) AND NOT EXISTS (SELECT FROM run_waits) THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(run_id) INTO ended FROM inserted
     WHERE type = 'state' AND data ->> 'state' IN ('succeeded', 'failed', 'cancelled');
    IF ended IS NULL THEN
        RETURN NULL;
    END IF;

    PERFORM runledger_lock_wait_v1(parent_id)
       FROM (SELECT DISTINCT parent_id FROM run_children WHERE child_id = ANY (ended) ORDER BY parent_id) AS parent;
    WITH told AS (
        UPDATE run_children SET is_awaited = false WHERE child_id = ANY (ended) AND is_awaited
        RETURNING parent_id, child_id
    )
    SELECT array_agg(parent_id),
           array_agg(parent_id) FILTER (
               WHERE child_id IN (SELECT run_id FROM inserted WHERE data ->> 'state' IN ('failed', 'cancelled')))
      INTO brought, failing FROM told;
    WITH over AS (
        DELETE FROM run_waits AS wait
         WHERE run_id = ANY (brought) AND signal IS NULL
           AND (NOT EXISTS (SELECT FROM run_children WHERE parent_id = wait.run_id AND is_awaited)
                OR (run_id = ANY (failing) AND policy = 'cancel'))
        RETURNING job_id
    )
    SELECT array_agg(job_id) INTO woken FROM over;
    IF woken IS NOT NULL THEN
        PERFORM runledger_wake_v1(woken);
    END IF;

    -- What has ended waits for nothing.
    DELETE FROM run_waits WHERE run_id = ANY (ended);
    -- Not here: who holds a child may be about to wake the parent, which is held here.
    PERFORM set_config('runledger.keeps_ledger', 'off', true);
    INSERT INTO procrastinate_jobs (task_name, args, queue_name, priority)
    SELECT 'cancel_children', jsonb_build_object('run_id', run.id), run.queue, run.priority
      FROM action_runs AS run
     WHERE run.id = ANY (ended) AND run.state = 'cancelled'
       AND EXISTS (SELECT FROM run_children AS child JOIN procrastinate_jobs AS job ON job.id = child.job_id
                    WHERE child.parent_id = run.id AND job.status IN ('todo', 'doing'));
    PERFORM set_config('runledger.keeps_ledger', coalesce(kept, ''), true);
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_runs_ended_v1
    AFTER INSERT ON run_events
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_runs_ended_v1();
"""


def upgrade() -> None:
    op.create_table(
        "run_children",
        sa.Column("parent_id", ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("child_id", ID, nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("is_awaited", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("parent_id", "key", name="pk_run_children"),
        sa.UniqueConstraint("child_id", name="uq_run_children_child_id"),
    )
    op.create_index("ix_run_children_parent_id_job_id", "run_children", ["parent_id", "job_id"])
    op.create_index("ix_run_children_awaited", "run_children", ["parent_id"], postgresql_where=sa.text("is_awaited"))
    op.create_table(
        "run_waits",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.Text()),
        sa.Column("signal", sa.Text()),
        sa.Column("until", TIME),
        sa.PrimaryKeyConstraint("run_id", name="pk_run_waits"),
    )
    op.create_table(
        "run_signals",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "name", name="pk_run_signals"),
    )
    for script in (LOCK, WAKE, PARK, RUNS_ENDED):
        run_sql(script)


def downgrade() -> None:
    op.execute("DROP TRIGGER runledger_runs_ended_v1 ON run_events")
    op.execute("DROP FUNCTION runledger_runs_ended_v1()")
    op.execute("DROP FUNCTION runledger_park_job_v1(bigint, bigint, integer, boolean)")
    op.execute("DROP FUNCTION runledger_wake_v1(bigint[])")
    op.execute("DROP FUNCTION runledger_lock_wait_v1(text)")
    for table in ("run_signals", "run_waits", "run_children"):
        op.drop_table(table)
