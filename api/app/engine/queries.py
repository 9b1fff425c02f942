"""Every statement of the engine. Each write names the holder it expects: job, worker and attempt.

A job and its row in `action_runs` change in one statement; where a job has no run, that part touches no row. The
statements that write a run's state and event themselves say so (`runledger.keeps_ledger`), and the ledger's trigger on
the jobs leaves both to them; whatever else changes a job, the trigger does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol


class Database(Protocol):
    """What runs a statement: a connector, or a worker's own link."""

    async def execute_query_all_async(self, query: str, **arguments: Any) -> list[dict[str, Any]]: ...


_CLAIM_JOBS = """
WITH RECURSIVE ready_queue (name) AS (
    -- The queues in which jobs without a lock wait, one index entry each; likewise the locks that jobs wait for.
    (SELECT queue_name FROM procrastinate_jobs
      WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL
      ORDER BY queue_name, ~priority, id LIMIT 1)
     UNION ALL
    SELECT following.name
      FROM ready_queue CROSS JOIN LATERAL (
        SELECT queue_name AS name FROM procrastinate_jobs
         WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND queue_name > ready_queue.name
         ORDER BY queue_name, ~priority, id LIMIT 1) AS following
), ready AS (
    SELECT job.id, job.priority
      FROM ready_queue CROSS JOIN LATERAL (
        SELECT id, priority FROM procrastinate_jobs
         WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND queue_name = ready_queue.name
         ORDER BY ~priority, id LIMIT %(limit)s::int FOR UPDATE SKIP LOCKED) AS job
     WHERE %(queues)s::text[] IS NULL OR ready_queue.name = ANY (%(queues)s::text[])
), waiting_lock (queue_name, lock) AS (
    SELECT %(after_queue)s::text, %(after_lock)s::text
     UNION ALL
    SELECT following.queue_name, following.lock
      FROM waiting_lock CROSS JOIN LATERAL (
        SELECT queue_name::text, lock FROM procrastinate_jobs
         WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NOT NULL
           AND (queue_name, lock) > (waiting_lock.queue_name, waiting_lock.lock)
           AND (%(queues)s::text[] IS NULL OR queue_name = ANY (%(queues)s::text[]))
         ORDER BY queue_name, lock LIMIT 1) AS following
), examined AS (
    SELECT queue_name, lock FROM waiting_lock OFFSET 1 LIMIT %(locks)s::int
), head AS (
    -- The first of those that wait for a lock, if nobody holds it; not the second when somebody is taking the first.
    -- A scheduled job does not stand in this line.
    SELECT job.id, job.priority
      FROM examined
      CROSS JOIN LATERAL (
        SELECT id FROM procrastinate_jobs
         WHERE status = 'todo' AND scheduled_at IS NULL AND lock = examined.lock
         ORDER BY ~priority, id LIMIT 1) AS first
      CROSS JOIN LATERAL (
        SELECT id, priority, queue_name FROM procrastinate_jobs
         WHERE id = first.id AND status = 'todo' FOR UPDATE SKIP LOCKED) AS job
     WHERE job.queue_name = examined.queue_name
       AND NOT EXISTS (SELECT FROM procrastinate_jobs AS running
                        WHERE running.status = 'doing' AND running.lock = examined.lock)
), claimed AS (
    -- "= ANY (array)", here and below, is read by index, whatever the planner believes of the table's size.
    UPDATE procrastinate_jobs SET status = 'doing', worker_id = %(worker_id)s::bigint
     WHERE id = ANY (ARRAY(SELECT id FROM (SELECT * FROM ready UNION ALL SELECT * FROM head) AS candidate
                            ORDER BY priority DESC, id LIMIT %(limit)s::int))
    RETURNING *
), started AS (
    UPDATE action_runs AS run
       SET state = 'running', attempt = claimed.attempts + 1, worker_id = claimed.worker_id, started_at = now(),
           last_seq = run.last_seq + 1
      FROM claimed
     WHERE run.job_id = claimed.id AND run.job_id = ANY (ARRAY(SELECT id FROM claimed))
    RETURNING run.id, run.job_id, run.attempt, run.last_seq, run.steps, run.crashes,
              coalesce(run.start_deadline < now() AND claimed.attempts = 0 AND run.crashes = 0, false) AS is_late
), told AS (
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT id, last_seq, 'state', jsonb_build_object('state', 'running', 'attempt', attempt) FROM started
), page AS (
    -- Where the next look at the locks begins, if this one has not seen them all.
    SELECT (SELECT ARRAY[queue_name, lock] FROM examined OFFSET greatest(%(locks)s::int, 1) - 1) AS last_lock,
           set_config('runledger.keeps_ledger', 'on', true)
)
SELECT page.last_lock, job.id, job.queue_name, job.task_name, job.priority, job.lock, job.queueing_lock, job.args,
       job.status, job.scheduled_at, job.attempts, job.abort_requested, job.worker_id,
       run.id AS run_id, run.steps, run.crashes, run.is_late
  FROM page
  LEFT JOIN claimed AS job ON true
  LEFT JOIN started AS run ON run.job_id = job.id
 ORDER BY job.priority DESC, job.id
"""

_RELEASE_DUE_JOBS = """
WITH due AS (
    SELECT id FROM procrastinate_jobs
     WHERE status = 'todo' AND scheduled_at <= now()
     ORDER BY scheduled_at
     LIMIT %(limit)s::int
       FOR UPDATE SKIP LOCKED
), released AS (
    UPDATE procrastinate_jobs AS job SET scheduled_at = NULL FROM due WHERE job.id = due.id
)
SELECT (SELECT count(*) FROM due) AS released,
       (SELECT extract(epoch FROM scheduled_at - now())::float8 FROM procrastinate_jobs
         WHERE status = 'todo' AND scheduled_at > now() ORDER BY scheduled_at LIMIT 1) AS seconds
"""

_END_JOBS = """
WITH ending AS (
    SELECT * FROM unnest(
        %(job_ids)s::bigint[], %(attempts)s::int[], %(statuses)s::text[], %(attempts_made)s::int[],
        %(delays)s::float8[], %(results)s::text[], %(errors)s::text[], %(tracebacks)s::text[],
        %(priorities)s::int[], %(queues)s::text[], %(locks)s::text[], %(keep_queueing_locks)s::bool[])
        AS ending (job_id, attempts, status, attempts_made, delay, result, error, traceback, priority, queue, lock,
                   keeps_queueing_lock)
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
    RETURNING job.id, job.status, job.attempts, job.scheduled_at, job.priority, job.queue_name, job.lock,
              runledger_run_state_v1(job.status, job.attempts, job.scheduled_at, false) AS state,
              ending.result::jsonb, ending.error::jsonb, ending.traceback
), recorded AS (
    UPDATE action_runs AS run
       SET state = ended.state,
           attempt = CASE WHEN ended.state = 'cancelled' THEN greatest(run.attempt, ended.attempts)
                          ELSE ended.attempts END,
           result = ended.result, error = ended.error, traceback = ended.traceback,
           schedule_at = coalesce(ended.scheduled_at, run.schedule_at),
           priority = ended.priority, queue = ended.queue_name, lock = ended.lock,
           cancel_requested_at = CASE WHEN ended.status <> 'todo' THEN run.cancel_requested_at END,
           finished_at = CASE WHEN ended.status <> 'todo' THEN now() END,
           last_seq = run.last_seq + 1
      FROM ended
     WHERE run.job_id = ended.id AND run.job_id = ANY (%(job_ids)s::bigint[])
    RETURNING run.id, run.last_seq, run.state, run.attempt, run.error, run.schedule_at
), told AS (
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT id, last_seq, 'state', jsonb_strip_nulls(jsonb_build_object(
               'state', state,
               'attempt', attempt,
               'schedule_at', CASE WHEN state IN ('scheduled', 'retrying') THEN schedule_at END,
               'error', CASE WHEN state IN ('failed', 'retrying') THEN error END))
      FROM recorded
)
SELECT id, set_config('runledger.keeps_ledger', 'on', true) FROM ended
"""

_DELETE_ENDED_JOBS = """
DELETE FROM procrastinate_jobs
 WHERE id = ANY (%(job_ids)s::bigint[]) AND status IN ('succeeded', 'failed', 'aborted', 'cancelled')
"""

_BEAT = """
INSERT INTO procrastinate_workers (id, last_heartbeat) OVERRIDING SYSTEM VALUE
VALUES (%(worker_id)s::bigint, now())
    ON CONFLICT (id) DO UPDATE SET last_heartbeat = now()
"""

_LIST_HELD_JOBS = """
SELECT id, attempts, abort_requested FROM procrastinate_jobs
 WHERE status = 'doing' AND worker_id = %(worker_id)s::bigint
"""

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

_EXPIRE_JOBS = """
WITH run AS MATERIALIZED (
    -- Those of the last hour; an older one that no sweep has seen is found late when it is claimed.
    SELECT id, job_id FROM action_runs WHERE start_deadline BETWEEN now() - interval '1 hour' AND now()
), late AS (
    SELECT job.id, run.id AS run_id
      FROM run JOIN procrastinate_jobs AS job ON job.id = run.job_id
     WHERE job.id = ANY (ARRAY(SELECT job_id FROM run)) AND job.status = 'todo' AND job.attempts = 0
     LIMIT %(limit)s::int
       FOR UPDATE OF job SKIP LOCKED
), told AS (
    UPDATE action_runs AS run SET error = %(error)s::jsonb FROM late WHERE run.id = late.run_id
)
UPDATE procrastinate_jobs AS job SET status = 'failed' FROM late WHERE job.id = late.id
RETURNING job.id
"""

_DELETE_LOST_WORKERS = """
DELETE FROM procrastinate_workers AS worker
 WHERE last_heartbeat < now() - %(lease)s::float8 * interval '1 second'
   AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE worker_id = worker.id AND status = 'doing')
"""

_NOTIFY_QUEUE_USAGE = """
SELECT pg_notification_queue_usage() AS usage
"""

_REGISTER_SCHEDULES = """
INSERT INTO schedules (task_name, periodic_id, cron, zone)
SELECT * FROM unnest(%(task_names)s::text[], %(periodic_ids)s::text[], %(crons)s::text[], %(zones)s::text[])
    ON CONFLICT (task_name, periodic_id) DO UPDATE
   SET cron = excluded.cron, zone = excluded.zone, last_tick = now()
 WHERE (schedules.cron, schedules.zone) <> (excluded.cron, excluded.zone)
"""

_LIST_SCHEDULES = """
SELECT task_name, periodic_id, last_tick, now() AS now FROM schedules
"""

_FIRE_SCHEDULE = """
WITH moved AS (
    UPDATE schedules SET last_tick = %(newest)s::timestamptz
     WHERE task_name = %(task_name)s::text AND periodic_id = %(periodic_id)s::text
       AND last_tick = %(before)s::timestamptz
    RETURNING task_name
)
INSERT INTO procrastinate_jobs (task_name, queue_name, priority, lock, queueing_lock, args)
SELECT moved.task_name, %(queue)s::text, %(priority)s::int, %(lock)s::text, %(queueing_lock)s::text,
       %(args)s::text::jsonb || jsonb_build_object('timestamp', tick)
  FROM moved, unnest(%(ticks)s::bigint[]) AS tick
    ON CONFLICT DO NOTHING
RETURNING id
"""


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


async def claim_jobs(
    database: Database,
    *,
    worker_id: int,
    limit: int,
    queues: Sequence[str] | None,
    locks: int,
    after: tuple[str, str],
) -> tuple[list[dict[str, Any]], tuple[str, str] | None]:
    """Take up to `limit` jobs that wait: the highest priority first, then the oldest, one a lock.

    Args:
        queues: `None` for all.
        locks: how many locks to look at, 0 to leave locked jobs alone.
        after: queue and lock behind which that look begins.

    Returns:
        The jobs, with what the ledger knows (`run_id`, `steps`, `crashes`, `is_late`; `None` for one without a run);
        and where the next look at the locks begins if this one did not see them all.

    Raises:
        UniqueViolation: another worker has taken a lock at the same moment. Nothing is claimed.
    """
    rows = await database.execute_query_all_async(
        _CLAIM_JOBS, worker_id=worker_id, limit=limit, queues=queues, locks=locks,
        after_queue=after[0], after_lock=after[1],
    )  # fmt: skip
    last_lock = rows[0]["last_lock"]
    return [row for row in rows if row["id"] is not None], (last_lock[0], last_lock[1]) if last_lock else None


async def release_due_jobs(database: Database, *, limit: int) -> tuple[int, float | None]:
    """Let jobs whose time has come wait like those that were never scheduled.

    Returns:
        How many there were, and the seconds until the next is due.
    """
    rows = await database.execute_query_all_async(_RELEASE_DUE_JOBS, limit=limit)
    return rows[0]["released"], rows[0]["seconds"]


async def end_jobs(database: Database, *, worker_id: int, ended: Sequence[EndedJob]) -> set[int]:
    """Write how attempts ended, those of them that this worker still holds.

    Returns:
        The ids of the jobs that it was written of; of the others, somebody else holds them or they have ended.

    Raises:
        UniqueViolation: one was to be put back, and another job waits under its queueing lock. None is written.
    """
    (job_ids, attempts, statuses, attempts_made, delays, results, errors, tracebacks, priorities, queues, locks,
     keep_queueing_locks) = zip(*ended, strict=True)  # fmt: skip
    rows = await database.execute_query_all_async(
        _END_JOBS, worker_id=worker_id, job_ids=job_ids, attempts=attempts, statuses=statuses,
        attempts_made=attempts_made, delays=delays, results=results, errors=errors, tracebacks=tracebacks,
        priorities=priorities, queues=queues, locks=locks, keep_queueing_locks=keep_queueing_locks,
    )  # fmt: skip
    return {row["id"] for row in rows}


async def delete_ended_jobs(database: Database, *, job_ids: Sequence[int]) -> None:
    """Delete jobs that have ended. Their runs stay."""
    await database.execute_query_all_async(_DELETE_ENDED_JOBS, job_ids=job_ids)


async def beat(database: Database, *, worker_id: int) -> None:
    """Say that a worker lives, and put its row back if another worker took it for dead."""
    await database.execute_query_all_async(_BEAT, worker_id=worker_id)


async def list_held_jobs(database: Database, *, worker_id: int) -> list[dict[str, Any]]:
    """The jobs that a worker holds: `{id, attempts, abort_requested}`."""
    return await database.execute_query_all_async(_LIST_HELD_JOBS, worker_id=worker_id)


async def list_abandoned_jobs(database: Database, *, lease: float, limit: int, but: Sequence[int] = ()) -> list[int]:
    """Jobs whose worker has not been heard of for `lease` seconds, `but` those that could not be rescued."""
    rows = await database.execute_query_all_async(_LIST_ABANDONED_JOBS, lease=float(lease), limit=limit, but=list(but))
    return [row["id"] for row in rows]


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


async def expire_jobs(database: Database, *, error: str, limit: int) -> list[int]:
    """End jobs whose run had to start by now and did not.

    Args:
        error: JSON text, for the runs.

    Returns:
        Their ids.
    """
    return [row["id"] for row in await database.execute_query_all_async(_EXPIRE_JOBS, error=error, limit=limit)]


async def delete_lost_workers(database: Database, *, lease: float) -> None:
    """Forget workers that have not been heard of for `lease` seconds and hold nothing."""
    await database.execute_query_all_async(_DELETE_LOST_WORKERS, lease=float(lease))


async def notify_queue_usage(database: Database) -> float:
    """How much of the server's NOTIFY queue is taken, from 0 to 1; asking lets go of what everybody has heard.

    A full queue is not looked at by those who announce: it stays full, and refuses every commit that announces
    something, until somebody asks.
    """
    return (await database.execute_query_all_async(_NOTIFY_QUEUE_USAGE))[0]["usage"]


async def register_schedules(
    database: Database, *, names: Sequence[tuple[str, str]], crons: Sequence[tuple[str, str]]
) -> None:
    """Make known what the code schedules; a schedule that is new, or has changed, begins now.

    Args:
        names: task name and periodic id of each.
        crons: cron and zone of each.
    """
    task_names, periodic_ids = zip(*names, strict=True)
    cron_texts, zones = zip(*crons, strict=True)
    await database.execute_query_all_async(
        _REGISTER_SCHEDULES, task_names=task_names, periodic_ids=periodic_ids, crons=cron_texts, zones=zones
    )


async def list_schedules(database: Database) -> list[dict[str, Any]]:
    """Every schedule: `{task_name, periodic_id, last_tick, now}`."""
    return await database.execute_query_all_async(_LIST_SCHEDULES)


async def fire_schedule(
    database: Database,
    *,
    name: tuple[str, str],
    before: datetime,
    newest: datetime,
    ticks: Sequence[int],
    queue: str,
    priority: int,
    lock: str | None,
    queueing_lock: str | None,
    args: str,
) -> int:
    """Move a schedule on and insert the jobs of its ticks, in one transaction, if nobody else has moved it.

    A tick whose queueing lock is taken has no job.

    Args:
        before: the last tick, as this worker knows it.
        newest: the last tick from now on.
        ticks: seconds since 1970 of those that get a job.
        args: JSON text, to which each job's `timestamp` is added.

    Returns:
        How many jobs were inserted.
    """
    rows = await database.execute_query_all_async(
        _FIRE_SCHEDULE, task_name=name[0], periodic_id=name[1], before=before, newest=newest, ticks=list(ticks),
        queue=queue, priority=priority, lock=lock, queueing_lock=queueing_lock, args=args,
    )  # fmt: skip
    return len(rows)
