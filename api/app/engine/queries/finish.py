"""How attempts ended, written by whoever holds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from app.engine.queries.database import Database


class EndedJob(NamedTuple):
    """How an attempt ended, as the database is told it."""

    job_id: int
    attempts: int
    """The job's attempts when it was claimed."""
    status: str
    """A Procrastinate status; `todo` puts it back."""
    result: str | None = None
    """JSON text."""
    attempts_made: int = 1
    """1, or 0 to give the attempt back."""
    claimed_at: datetime | None = None
    """When the run was claimed. Given back, it is claimed again under the same number: this tells the two apart."""
    is_snoozed: bool = False
    """Whether it is put back because it was asked for patience."""
    delay: float = 0.0
    """Seconds from now, by the database's clock, before which it is not claimed again."""
    error: str | None = None
    """JSON text."""
    traceback: str | None = None
    priority: int | None = None
    queue: str | None = None
    lock: str | None = None
    keeps_queueing_lock: bool = True
    """Whether it waits under its queueing lock again; another job may wait there now."""


_ALWAYS_TOLD = EndedJob._fields.index("attempts_made")
_DEFAULTS = tuple(EndedJob._field_defaults[name] for name in EndedJob._fields[_ALWAYS_TOLD:])
_END_JOBS = """
WITH ending AS (
    -- What is true of few, in one JSON object: an array for each costs every run a tenth of its time in Python.
    SELECT job_id, attempts, status, result, details ->> 'traceback' AS traceback, details ->> 'queue' AS queue,
           details ->> 'lock' AS lock, (details ->> 'error')::jsonb AS error, (details ->> 'priority')::int AS priority,
           (details ->> 'delay')::float8 AS delay, (details ->> 'claimed_at')::timestamptz AS claimed_at,
           coalesce((details ->> 'attempts_made')::int, 1) AS attempts_made,
           coalesce((details ->> 'is_snoozed')::bool, false) AS is_snoozed,
           coalesce((details ->> 'keeps_queueing_lock')::bool, true) AS keeps_queueing_lock
      FROM (SELECT job_id, attempts, status, result, details::jsonb
              FROM unnest(%(job_ids)s::bigint[], %(attempts)s::int[], %(statuses)s::text[], %(results)s::text[],
                          %(details)s::text[]) AS told (job_id, attempts, status, result, details)) AS ending
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
       AND (ending.claimed_at IS NULL
            OR ending.claimed_at = (SELECT run.started_at FROM action_runs AS run WHERE run.job_id = job.id))
    RETURNING job.id, job.status, job.attempts, job.scheduled_at, job.priority, job.queue_name, job.lock,
              runledger_run_state_v1(job.status, job.attempts, job.scheduled_at, false) AS state,
              ending.result::jsonb, ending.error, ending.traceback,
              ending.is_snoozed AND job.status = 'todo' AS is_snoozed
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
     WHERE run.job_id = ended.id
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
    rows = await database.execute_query_all_async(
        _END_JOBS, worker_id=worker_id, job_ids=[one.job_id for one in ended], attempts=[one.attempts for one in ended],
        statuses=[one.status for one in ended], results=[one.result for one in ended],
        details=[_details(one) for one in ended],
    )  # fmt: skip
    return {row["id"] for row in rows}


def _details(ended: EndedJob) -> str | None:
    details = ended[_ALWAYS_TOLD:]
    if details == _DEFAULTS:
        return None
    return json.dumps(dict(zip(EndedJob._fields[_ALWAYS_TOLD:], details, strict=True)), default=str)


class ParkedJob(NamedTuple):
    """An attempt that ends because its run waits."""

    job_id: int
    attempts: int
    """As of `EndedJob`, and below."""
    claimed_at: datetime | None
    keeps_queueing_lock: bool = True


# In one order, so that who parks many waits for nobody whom he keeps waiting.
_PARK_JOBS = """
SELECT parked.id
  FROM (SELECT parking.*
          FROM unnest(%(job_ids)s::bigint[], %(attempts)s::int[], %(claimed_ats)s::timestamptz[],
                      %(keep_queueing_locks)s::bool[])
               AS parking (job_id, attempts, claimed_at, keeps_queueing_lock)
          LEFT JOIN action_runs AS run ON run.job_id = parking.job_id
         ORDER BY run.id) AS parking
  CROSS JOIN LATERAL runledger_park_job_v2(
       parking.job_id, %(worker_id)s::bigint, parking.attempts, parking.claimed_at, parking.keeps_queueing_lock)
       AS parked (id)
"""


async def park_jobs(database: Database, *, worker_id: int, parked: Sequence[ParkedJob]) -> set[int]:
    """Put jobs back until what their runs wait for has come, those of them that this worker still holds.

    Returns:
        The ids of the jobs that were put back, or ended because somebody had asked for it.

    Raises:
        UniqueViolation: another job waits under the queueing lock of one. None is put back.
    """
    job_ids, attempts, claimed_ats, keep_queueing_locks = zip(*parked, strict=True)
    rows = await database.execute_query_all_async(
        _PARK_JOBS, worker_id=worker_id, job_ids=job_ids, attempts=attempts, claimed_ats=claimed_ats,
        keep_queueing_locks=keep_queueing_locks,
    )  # fmt: skip
    return {row["id"] for row in rows}


_DELETE_ENDED_JOBS = """
DELETE FROM procrastinate_jobs
 WHERE id = ANY (%(job_ids)s::bigint[]) AND status IN ('succeeded', 'failed', 'aborted', 'cancelled')
"""


async def delete_ended_jobs(database: Database, *, job_ids: Sequence[int]) -> None:
    """Delete jobs that have ended. Their runs stay."""
    await database.execute_query_all_async(_DELETE_ENDED_JOBS, job_ids=job_ids)
