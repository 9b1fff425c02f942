"""Whoever frees a place under a limit, or a lock, wakes those that wait for it, in whichever queue they are."""

from alembic import op

from app.engine.schema import run_sql

revision = "app_0015"
down_revision = "app_0014"
branch_labels = None
depends_on = None

# One notification a queue and a statement, and none where nobody waits. A statement that frees nothing pays for one
# look at what it has changed. The queues with limited jobs are walked as a claim walks them, one index entry each. A
# lock has rung in the queue of who held it: what is left are those that wait for it in another.
JOBS_FREED = """
CREATE FUNCTION runledger_jobs_freed_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM updated
                    WHERE status <> 'doing' AND (limit_key IS NOT NULL OR lock IS NOT NULL)) THEN
        RETURN NULL;
    END IF;

    PERFORM runledger_ring_v1((
        WITH RECURSIVE freed AS MATERIALIZED (
            SELECT DISTINCT job.queue_name, job.lock,
                   CASE WHEN limits.concurrency IS NOT NULL THEN job.limit_key END AS key
              FROM updated AS job
              JOIN before USING (id)
              LEFT JOIN limits ON limits.task_name = job.task_name
             WHERE before.status = 'doing' AND job.status <> 'doing'
        ), limited_queue (name) AS (
            (SELECT queue_name FROM procrastinate_jobs
              WHERE EXISTS (SELECT FROM freed WHERE key IS NOT NULL)
                AND status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NOT NULL
              ORDER BY queue_name, limit_key, ~priority, id LIMIT 1)
             UNION ALL
            SELECT following.queue_name
              FROM limited_queue CROSS JOIN LATERAL (
                SELECT queue_name FROM procrastinate_jobs
                 WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NOT NULL
                   AND queue_name > limited_queue.name
                 ORDER BY queue_name, limit_key, ~priority, id LIMIT 1) AS following
        ), waiting AS (
            SELECT name FROM limited_queue
             WHERE EXISTS (SELECT FROM freed JOIN procrastinate_jobs AS job ON job.limit_key = freed.key
                            WHERE job.status = 'todo' AND job.scheduled_at IS NULL AND job.lock IS NULL
                              AND job.limit_key IS NOT NULL AND job.queue_name = limited_queue.name)
             UNION
            SELECT first.queue_name
              FROM freed CROSS JOIN LATERAL (
                SELECT queue_name FROM procrastinate_jobs
                 WHERE status = 'todo' AND scheduled_at IS NULL AND lock = freed.lock
                 ORDER BY ~priority, id LIMIT 1) AS first
             WHERE first.queue_name <> freed.queue_name
        )
        SELECT array_agg(name::text) FROM waiting), 'job_inserted', 0);
    RETURN NULL;
END $$;

CREATE TRIGGER runledger_jobs_freed_v1
    AFTER UPDATE ON procrastinate_jobs
    REFERENCING OLD TABLE AS before NEW TABLE AS updated
    FOR EACH STATEMENT EXECUTE FUNCTION runledger_jobs_freed_v1();
"""


def upgrade() -> None:
    run_sql(JOBS_FREED)


def downgrade() -> None:
    op.execute("DROP TRIGGER runledger_jobs_freed_v1 ON procrastinate_jobs")
    op.execute("DROP FUNCTION runledger_jobs_freed_v1()")
