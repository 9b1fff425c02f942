"""How attempts ended, written by whoever holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from app.engine.queries.database import Database


class EndedJob(NamedTuple):
    """How an attempt ended, as the database is told it."""

    job_id: int
    attempts: int
    """The job's attempts when it was claimed."""
    status: str
    """A Procrastinate status; `todo` puts it back."""
    attempts_made: int = 1
    """1, or 0 to give the attempt back."""
    delay: float = 0.0
    """Seconds from now, by the database's clock, before which it is not claimed again."""
    result: str | None = None
    """JSON text."""
    error: str | None = None
    """JSON text."""
    traceback: str | None = None
    priority: int | None = None
    queue: str | None = None
    lock: str | None = None
    keeps_queueing_lock: bool = True
    """Whether it waits under its queueing lock again; another job may wait there now."""
    snoozes: int | None = None
    """Of a snooze, how many there were before: the next has the same attempt, and must not be taken for this one."""


_END_JOBS = """
WITH ending AS (
    SELECT * FROM unnest(
        %(job_ids)s::bigint[], %(attempts)s::int[], %(statuses)s::text[], %(attempts_made)s::int[],
        %(delays)s::float8[], %(results)s::text[], %(errors)s::text[], %(tracebacks)s::text[],
        %(priorities)s::int[], %(queues)s::text[], %(locks)s::text[], %(keep_queueing_locks)s::bool[],
        %(snoozes)s::int[])
        AS ending (job_id, attempts, status, attempts_made, delay, result, error, traceback, priority, queue, lock,
                   keeps_queueing_lock, snoozes)
), ended AS (
    UPDATE procrastinate_jobs AS job
       -- A job that was asked to stop is not put back: it ends as what was asked for.
       SET status = CASE WHEN ending.status = 'todo' AND job.abort_requested THEN 'aborted'
                         ELSE ending.status END::procrastinate_job_status,
           attempts = job.attempts + ending.attempts_made,
           scheduled_at = CASE WHEN ending.delay > 0 THEN now() + ending.delay * interval '1 second' END,
           priority = coalesce(ending.priority, job.priority),
           queue_name = coalesce(ending.queue, job.queue_name),
           lock = coalesce(ending.lock, job.lock),
           queueing_lock = CASE WHEN ending.keeps_queueing_lock THEN job.queueing_lock END,
           worker_id = NULL,
           abort_requested = false
      FROM ending
     WHERE job.id = ending.job_id AND job.id = ANY (%(job_ids)s::bigint[])
       -- IS TRUE keeps the planner from the index of what runs, which is full of what ran a moment ago.
       AND (job.status = 'doing' AND job.worker_id = %(worker_id)s::bigint AND job.attempts = ending.attempts) IS TRUE
       AND (ending.snoozes IS NULL
            OR ending.snoozes = (SELECT run.snoozes FROM action_runs AS run WHERE run.job_id = job.id))
    RETURNING job.id, job.status, job.attempts, job.scheduled_at, job.priority, job.queue_name, job.lock,
              runledger_run_state_v1(job.status, job.attempts, job.scheduled_at, false) AS state,
              ending.result::jsonb, ending.error::jsonb, ending.traceback,
              ending.snoozes IS NOT NULL AND job.status = 'todo' AS is_snoozed
), recorded AS (
    UPDATE action_runs AS run
       SET state = ended.state,
           attempt = CASE WHEN ended.state = 'cancelled' THEN greatest(run.attempt, ended.attempts)
                          ELSE ended.attempts END,
           result = ended.result, error = ended.error, traceback = ended.traceback,
           snoozes = run.snoozes + ended.is_snoozed::int,
           schedule_at = coalesce(ended.scheduled_at, run.schedule_at),
           -- Who is snoozed has started in time.
           start_deadline = CASE WHEN NOT ended.is_snoozed THEN run.start_deadline END,
           priority = ended.priority, queue = ended.queue_name, lock = ended.lock,
           cancel_requested_at = CASE WHEN ended.status <> 'todo' THEN run.cancel_requested_at END,
           finished_at = CASE WHEN ended.status <> 'todo' THEN now() END,
           last_seq = run.last_seq + 1
      FROM ended
     WHERE run.job_id = ended.id AND run.job_id = ANY (%(job_ids)s::bigint[])
    RETURNING run.id, run.last_seq, run.state, run.attempt, run.error, run.schedule_at,
              CASE WHEN ended.is_snoozed THEN run.snoozes END AS snoozes
), told AS (
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT id, last_seq, 'state', jsonb_strip_nulls(jsonb_build_object(
               'state', state,
               'attempt', attempt,
               'schedule_at', CASE WHEN state IN ('scheduled', 'retrying') THEN schedule_at END,
               'snoozes', snoozes,
               'error', CASE WHEN state IN ('failed', 'retrying') OR snoozes IS NOT NULL THEN error END))
      FROM recorded
)
SELECT id, set_config('runledger.keeps_ledger', 'on', true) FROM ended
"""


async def end_jobs(database: Database, *, worker_id: int, ended: Sequence[EndedJob]) -> set[int]:
    """Write how attempts ended, those of them that this worker still holds.

    Returns:
        The ids of the jobs that it was written of; of the others, somebody else holds them or they have ended.

    Raises:
        UniqueViolation: one was to be put back, and another job waits under its queueing lock. None is written.
    """
    (job_ids, attempts, statuses, attempts_made, delays, results, errors, tracebacks, priorities, queues, locks,
     keep_queueing_locks, snoozes) = zip(*ended, strict=True)  # fmt: skip
    rows = await database.execute_query_all_async(
        _END_JOBS, worker_id=worker_id, job_ids=job_ids, attempts=attempts, statuses=statuses,
        attempts_made=attempts_made, delays=delays, results=results, errors=errors, tracebacks=tracebacks,
        priorities=priorities, queues=queues, locks=locks, keep_queueing_locks=keep_queueing_locks, snoozes=snoozes,
    )  # fmt: skip
    return {row["id"] for row in rows}


class ParkedJob(NamedTuple):
    """An attempt that ends because its run waits."""

    job_id: int
    attempts: int
    """As of `EndedJob`, and below."""
    keeps_queueing_lock: bool = True


# In one order, so that who parks many waits for nobody whom he keeps waiting.
_PARK_JOBS = """
SELECT parked.id
  FROM (SELECT parking.*
          FROM unnest(%(job_ids)s::bigint[], %(attempts)s::int[], %(keep_queueing_locks)s::bool[])
               AS parking (job_id, attempts, keeps_queueing_lock)
          LEFT JOIN action_runs AS run ON run.job_id = parking.job_id
         ORDER BY run.id) AS parking
  CROSS JOIN LATERAL runledger_park_job_v1(
       parking.job_id, %(worker_id)s::bigint, parking.attempts, parking.keeps_queueing_lock) AS parked (id)
"""


async def park_jobs(database: Database, *, worker_id: int, parked: Sequence[ParkedJob]) -> set[int]:
    """Put jobs back until what their runs wait for has come, those of them that this worker still holds.

    Returns:
        The ids of the jobs that were put back, or ended because somebody had asked for it.

    Raises:
        UniqueViolation: another job waits under the queueing lock of one. None is put back.
    """
    job_ids, attempts, keep_queueing_locks = zip(*parked, strict=True)
    rows = await database.execute_query_all_async(
        _PARK_JOBS, worker_id=worker_id, job_ids=job_ids, attempts=attempts, keep_queueing_locks=keep_queueing_locks
    )
    return {row["id"] for row in rows}


_DELETE_ENDED_JOBS = """
DELETE FROM procrastinate_jobs
 WHERE id = ANY (%(job_ids)s::bigint[]) AND status IN ('succeeded', 'failed', 'aborted', 'cancelled')
"""


async def delete_ended_jobs(database: Database, *, job_ids: Sequence[int]) -> None:
    """Delete jobs that have ended. Their runs stay."""
    await database.execute_query_all_async(_DELETE_ENDED_JOBS, job_ids=job_ids)
