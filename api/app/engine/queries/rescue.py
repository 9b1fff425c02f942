"""Jobs that nobody will end: those of lost workers, and those that had to start by now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.engine.queries.database import Database

_LIST_ABANDONED_JOBS = """
WITH job AS MATERIALIZED (
    -- Apart, so that what runs is read by its index, and not everything that ever was in the order of the answer.
    SELECT id, worker_id FROM procrastinate_jobs WHERE status = 'doing'
)
SELECT job.id
  FROM job
  LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
 WHERE (worker.id IS NULL OR worker.last_heartbeat < now() - %(lease)s::float8 * interval '1 second')
   AND NOT job.id = ANY (%(but)s::bigint[])
 ORDER BY job.id
 LIMIT %(limit)s::int
"""


async def list_abandoned_jobs(database: Database, *, lease: float, limit: int, but: Sequence[int] = ()) -> list[int]:
    """Jobs whose worker has not been heard of for `lease` seconds, `but` those that could not be rescued."""
    rows = await database.execute_query_all_async(_LIST_ABANDONED_JOBS, lease=float(lease), limit=limit, but=list(but))
    return [row["id"] for row in rows]


_RESCUE_JOB = """
WITH abandoned AS (
    SELECT job.id, job.abort_requested
      FROM procrastinate_jobs AS job
      LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
     WHERE job.id = %(job_id)s::bigint
       AND job.status = 'doing'
       AND (worker.id IS NULL OR worker.last_heartbeat < now() - %(lease)s::float8 * interval '1 second')
       FOR UPDATE OF job SKIP LOCKED
), crashed AS (
    UPDATE action_runs AS run
       SET crashes = run.crashes + 1, error = %(error)s::jsonb, traceback = NULL
      FROM abandoned
     WHERE run.job_id = abandoned.id
    RETURNING run.job_id, run.crashes
)
UPDATE procrastinate_jobs AS job
   SET status = CASE WHEN abandoned.abort_requested THEN 'aborted'
                     WHEN crashed.crashes >= %(crash_cap)s::int THEN 'failed'
                     ELSE 'todo' END::procrastinate_job_status,
       attempts = job.attempts + 1,
       queueing_lock = CASE WHEN %(keeps_queueing_lock)s::bool THEN job.queueing_lock END,
       worker_id = NULL,
       abort_requested = false
  FROM abandoned LEFT JOIN crashed ON crashed.job_id = abandoned.id
 WHERE job.id = abandoned.id
RETURNING job.id, job.status
"""


async def rescue_job(
    database: Database, *, job_id: int, lease: float, crash_cap: int, error: str, keeps_queueing_lock: bool
) -> dict[str, Any] | None:
    """Put an abandoned job back, or end it when its workers were lost too often.

    Args:
        error: JSON text, for the run.
        keeps_queueing_lock: whether it waits under its queueing lock again; another job may wait there now.

    Returns:
        `{id, status}`, or `None` if the job is no longer abandoned.
    """
    rows = await database.execute_query_all_async(
        _RESCUE_JOB,
        job_id=job_id,
        lease=float(lease),
        crash_cap=crash_cap,
        error=error,
        keeps_queueing_lock=keeps_queueing_lock,
    )
    return rows[0] if rows else None


_EXPIRE_JOBS = """
WITH run AS MATERIALIZED (
    -- Those of the last hour; an older one that no sweep has seen is found late when it is claimed.
    SELECT id, job_id FROM action_runs WHERE start_deadline BETWEEN now() - interval '1 hour' AND now()
), late AS (
    SELECT job.id, run.id AS run_id
      FROM run
      CROSS JOIN LATERAL (
        SELECT id FROM procrastinate_jobs
         WHERE id = run.job_id AND status = 'todo' AND attempts = 0 FOR UPDATE SKIP LOCKED) AS job
     LIMIT %(limit)s::int
), told AS (
    UPDATE action_runs SET error = %(error)s::jsonb WHERE id = ANY (ARRAY(SELECT run_id FROM late))
)
UPDATE procrastinate_jobs SET status = 'failed' WHERE id = ANY (ARRAY(SELECT id FROM late))
RETURNING id
"""


async def expire_jobs(database: Database, *, error: str, limit: int) -> list[int]:
    """End jobs whose run had to start by now and did not.

    Args:
        error: JSON text, for the runs.

    Returns:
        Their ids.
    """
    return [row["id"] for row in await database.execute_query_all_async(_EXPIRE_JOBS, error=error, limit=limit)]
