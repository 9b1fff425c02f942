"""Runs that have ended: put back, or deleted when they are old."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


async def requeue_ended_job(connection: AsyncConnection, *, job_id: int) -> bool:
    """Put the job of a run that failed or was cancelled back into its queue.

    Returns:
        Whether there was such a job.
    """
    statement = text("""
        UPDATE procrastinate_jobs SET status = 'todo', scheduled_at = NULL, abort_requested = false
         WHERE id = :job_id AND status IN ('failed', 'cancelled', 'aborted')
        RETURNING id
    """)
    return (await connection.execute(statement, {"job_id": job_id})).first() is not None


_DELETE_ENDED_RUNS = """
WITH page AS MATERIALIZED (
    -- In the order of acceptance, by its index; an index on the time of the end would cost every run that ends.
    SELECT id, job_id, parent_id, created_at, finished_at FROM action_runs
     WHERE job_id > :after ORDER BY job_id LIMIT :limit
), old AS MATERIALIZED (
    -- What a run has waited for stays as long as that run has not ended.
    SELECT id, job_id FROM page
     WHERE finished_at < now() - CAST(:older_than AS interval)
       AND NOT EXISTS (SELECT FROM action_runs AS parent
                        WHERE parent.id = page.parent_id AND parent.finished_at IS NULL)
), known AS MATERIALIZED (
    SELECT id FROM procrastinate_jobs WHERE id = ANY (ARRAY(SELECT job_id FROM old))
), job AS MATERIALIZED (
    -- The job first, then its run: the order of everybody who changes a run. Who is being retried is left alone.
    SELECT id FROM procrastinate_jobs
     WHERE id = ANY (ARRAY(SELECT job_id FROM old)) AND status NOT IN ('todo', 'doing')
       FOR UPDATE SKIP LOCKED
), run AS MATERIALIZED (
    SELECT id, job_id, tags FROM action_runs
     WHERE id = ANY (ARRAY(SELECT id FROM old
                            WHERE job_id = ANY (ARRAY(SELECT id FROM job))
                               OR NOT job_id = ANY (ARRAY(SELECT id FROM known))))
       AND finished_at < now() - CAST(:older_than AS interval)
       FOR UPDATE SKIP LOCKED
), events_deleted AS (
    DELETE FROM run_events WHERE run_id = ANY (ARRAY(SELECT id FROM run))
), jobs_deleted AS (
    DELETE FROM procrastinate_jobs WHERE id = ANY (ARRAY(SELECT job_id FROM run))
), tags_deleted AS (
    DELETE FROM run_tags USING (SELECT unnest(tags) AS tag, job_id FROM run) AS tagged
     WHERE run_tags.tag = tagged.tag AND run_tags.job_id = tagged.job_id
), children_deleted AS (
    DELETE FROM run_children WHERE child_id = ANY (ARRAY(SELECT id FROM run))
), signals_deleted AS (
    DELETE FROM run_signals WHERE run_id = ANY (ARRAY(SELECT id FROM run))
), unique_deleted AS (
    DELETE FROM unique_runs WHERE job_id = ANY (ARRAY(SELECT job_id FROM run))
), runs_deleted AS (
    DELETE FROM action_runs WHERE id = ANY (ARRAY(SELECT id FROM run))
)
SELECT (SELECT count(*) FROM run) AS deleted,
       -- No run has ended before it was accepted: where all are young, all that follow are.
       (SELECT max(job_id) FROM page HAVING min(created_at) < now() - CAST(:older_than AS interval)) AS last
"""


async def delete_ended_runs(
    connection: AsyncConnection, *, after: int, older_than: timedelta, limit: int
) -> tuple[int, int | None]:
    """Look at the oldest runs, and delete those that ended long ago, with their events, steps and jobs.

    Args:
        after: only at runs accepted after the one whose job this is.
        limit: at how many.

    Returns:
        How many were deleted, and the `after` to go on with; `None` if no older run can follow.
    """
    arguments = {"after": after, "older_than": older_than, "limit": limit}
    row = (await connection.execute(text(_DELETE_ENDED_RUNS), arguments)).one()
    return row.deleted, row.last
