"""Every statement of the engine. Each write names the holder it expects: job, worker and attempt.

A job and its row in `action_runs` change in one statement; where a job has no run, that part touches no row.
States, events and the rest of the run follow by the triggers of the ledger's migration.
"""

from __future__ import annotations

from typing import Any

from procrastinate.connector import BaseAsyncConnector

_END_JOB = """
WITH ended AS (
    UPDATE procrastinate_jobs
       -- A job that was asked to stop is not put back: it ends as what was asked for.
       SET status = CASE WHEN %(status)s::text = 'todo' AND abort_requested THEN 'aborted'
                         ELSE %(status)s::text END::procrastinate_job_status,
           attempts = attempts + %(attempts_made)s::int,
           scheduled_at = CASE WHEN %(delay)s::float8 > 0 THEN now() + %(delay)s::float8 * interval '1 second'
                               ELSE scheduled_at END,
           priority = coalesce(%(priority)s::int, priority),
           queue_name = coalesce(%(queue)s::text, queue_name),
           lock = coalesce(%(lock)s::text, lock),
           queueing_lock = CASE WHEN %(keeps_queueing_lock)s::bool THEN queueing_lock END,
           abort_requested = false
     WHERE id = %(job_id)s::bigint
       AND status = 'doing'
       AND worker_id = %(worker_id)s::bigint
       AND attempts = %(attempts)s::int
    RETURNING id
), recorded AS (
    UPDATE action_runs AS run
       SET result = %(result)s::jsonb, error = %(error)s::jsonb, traceback = %(traceback)s::text
      FROM ended
     WHERE run.job_id = ended.id
)
SELECT id FROM ended
"""

_DELETE_ENDED_JOB = """
DELETE FROM procrastinate_jobs
 WHERE id = %(job_id)s::bigint AND status IN ('succeeded', 'failed', 'aborted', 'cancelled')
"""

_BEAT = """
INSERT INTO procrastinate_workers (id, last_heartbeat) OVERRIDING SYSTEM VALUE
VALUES (%(worker_id)s::bigint, now())
    ON CONFLICT (id) DO UPDATE SET last_heartbeat = now()
"""

_LIST_HELD_JOBS = """
SELECT id, attempts FROM procrastinate_jobs WHERE status = 'doing' AND worker_id = %(worker_id)s::bigint
"""

_LIST_ABANDONED_JOBS = """
SELECT job.id
  FROM procrastinate_jobs AS job
  LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
 WHERE job.status = 'doing'
   AND (worker.id IS NULL OR worker.last_heartbeat < now() - %(lease)s::float8 * interval '1 second')
 ORDER BY job.id
 LIMIT %(limit)s::int
"""

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
       abort_requested = false
  FROM abandoned LEFT JOIN crashed ON crashed.job_id = abandoned.id
 WHERE job.id = abandoned.id
RETURNING job.id, job.status
"""


async def end_job(
    connector: BaseAsyncConnector,
    *,
    job_id: int,
    worker_id: int,
    attempts: int,
    status: str,
    keeps_queueing_lock: bool,
    attempts_made: int = 1,
    delay: float = 0,
    result: str | None = None,
    error: str | None = None,
    traceback: str | None = None,
    priority: int | None = None,
    queue: str | None = None,
    lock: str | None = None,
) -> bool:
    """Write how a job ended, if this worker still holds this attempt of it.

    Args:
        attempts: the job's attempts when it was claimed.
        status: a Procrastinate status; `todo` puts it back, `delay` seconds from now.
        keeps_queueing_lock: whether it waits under its queueing lock again; another job may wait there now.
        attempts_made: 1, or 0 to give the attempt back.
        result: JSON text.
        error: JSON text.

    Returns:
        Whether it was written; if not, somebody else holds the job or it has ended.
    """
    rows = await connector.execute_query_all_async(
        _END_JOB,
        keeps_queueing_lock=keeps_queueing_lock,
        job_id=job_id, worker_id=worker_id, attempts=attempts, status=status, attempts_made=attempts_made,
        delay=float(delay), result=result, error=error, traceback=traceback, priority=priority, queue=queue, lock=lock,
    )  # fmt: skip
    return bool(rows)


async def delete_ended_job(connector: BaseAsyncConnector, *, job_id: int) -> None:
    """Delete a job that has ended. Its run stays."""
    await connector.execute_query_async(_DELETE_ENDED_JOB, job_id=job_id)


async def beat(connector: BaseAsyncConnector, *, worker_id: int) -> None:
    """Say that a worker lives, and put its row back if another worker took it for dead."""
    await connector.execute_query_async(_BEAT, worker_id=worker_id)


async def list_held_jobs(connector: BaseAsyncConnector, *, worker_id: int) -> list[tuple[int, int]]:
    """The jobs that a worker holds: id and attempts."""
    rows = await connector.execute_query_all_async(_LIST_HELD_JOBS, worker_id=worker_id)
    return [(row["id"], row["attempts"]) for row in rows]


async def list_abandoned_jobs(connector: BaseAsyncConnector, *, lease: float, limit: int) -> list[int]:
    """Jobs whose worker has not been heard of for `lease` seconds."""
    rows = await connector.execute_query_all_async(_LIST_ABANDONED_JOBS, lease=float(lease), limit=limit)
    return [row["id"] for row in rows]


async def rescue_job(
    connector: BaseAsyncConnector, *, job_id: int, lease: float, crash_cap: int, error: str, keeps_queueing_lock: bool
) -> dict[str, Any] | None:
    """Put an abandoned job back, or end it when its workers were lost too often.

    Args:
        error: JSON text, for the run.
        keeps_queueing_lock: whether it waits under its queueing lock again; another job may wait there now.

    Returns:
        `{id, status}`, or `None` if the job is no longer abandoned.
    """
    rows = await connector.execute_query_all_async(
        _RESCUE_JOB,
        job_id=job_id,
        lease=float(lease),
        crash_cap=crash_cap,
        error=error,
        keeps_queueing_lock=keeps_queueing_lock,
    )
    return rows[0] if rows else None
