"""Every statement of the engine. Each write names the holder it expects: job, worker and attempt.

A job and its row in `action_runs` change in one statement; where a job has no run, that part touches no row. The
statements that write a run's state and event themselves say so (`runledger.keeps_ledger`), and the ledger's trigger on
the jobs leaves both to them; whatever else changes a job, the trigger does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from app.engine.limits import Limit

ADOPTED_AT_ONCE = 1000


class Database(Protocol):
    """What runs a statement: a connector, or a worker's own link."""

    async def execute_query_all_async(self, query: str, **arguments: Any) -> list[dict[str, Any]]: ...


_CLAIM_JOBS = """
WITH RECURSIVE paused (queue_name) AS MATERIALIZED (
    SELECT queue_name FROM queue_pauses WHERE resume_at IS NULL OR resume_at > now()
), ready_queue (name) AS (
    -- The queues in which jobs wait that need no lock and have no limit, one index entry each. Likewise, below, the
    -- locks that jobs wait for, and the keys of limits.
    (SELECT queue_name FROM procrastinate_jobs
      WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NULL
      ORDER BY queue_name, ~priority, id LIMIT 1)
     UNION ALL
    SELECT following.name
      FROM ready_queue CROSS JOIN LATERAL (
        SELECT queue_name AS name FROM procrastinate_jobs
         WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NULL
           AND queue_name > ready_queue.name
         ORDER BY queue_name, ~priority, id LIMIT 1) AS following
), ready AS (
    SELECT job.id, job.priority
      FROM ready_queue CROSS JOIN LATERAL (
        SELECT id, priority FROM procrastinate_jobs
         WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NULL
           AND queue_name = ready_queue.name
         ORDER BY ~priority, id LIMIT %(limit)s::int FOR UPDATE SKIP LOCKED) AS job
     WHERE (%(queues)s::text[] IS NULL OR ready_queue.name = ANY (%(queues)s::text[]))
       AND NOT ready_queue.name = ANY (ARRAY(SELECT queue_name FROM paused))
), waiting_lock (queue_name, lock, is_paused) AS (
    SELECT %(after_lock_queue)s::text, %(after_lock)s::text,
           %(after_lock_queue)s::text = ANY (ARRAY(SELECT queue_name FROM paused))
     UNION ALL
    SELECT following.queue_name, following.lock, following.queue_name = ANY (ARRAY(SELECT queue_name FROM paused))
      FROM waiting_lock CROSS JOIN LATERAL (
        (SELECT queue_name::text, lock FROM procrastinate_jobs
          WHERE NOT waiting_lock.is_paused
            AND status = 'todo' AND scheduled_at IS NULL AND lock IS NOT NULL
            AND (queue_name, lock) > (waiting_lock.queue_name, waiting_lock.lock)
            AND (%(queues)s::text[] IS NULL OR queue_name = ANY (%(queues)s::text[]))
          ORDER BY queue_name, lock LIMIT 1)
         UNION ALL
        -- Behind a paused queue: its locks are many, and none is wanted.
        (SELECT queue_name::text, lock FROM procrastinate_jobs
          WHERE waiting_lock.is_paused
            AND status = 'todo' AND scheduled_at IS NULL AND lock IS NOT NULL
            AND queue_name > waiting_lock.queue_name
            AND (%(queues)s::text[] IS NULL OR queue_name = ANY (%(queues)s::text[]))
          ORDER BY queue_name, lock LIMIT 1)) AS following
), examined AS (
    SELECT queue_name, lock FROM (SELECT * FROM waiting_lock OFFSET 1) AS waiting
     WHERE NOT is_paused LIMIT %(lines)s::int
), head AS (
    -- The first of those that wait for a lock, if nobody holds it; not the second when somebody is taking the first.
    -- A scheduled job does not stand in this line.
    SELECT job.id, job.priority, job.limit_key, job.task_name
      FROM examined
      CROSS JOIN LATERAL (
        SELECT id FROM procrastinate_jobs
         WHERE status = 'todo' AND scheduled_at IS NULL AND lock = examined.lock
         ORDER BY ~priority, id LIMIT 1) AS first
      CROSS JOIN LATERAL (
        SELECT id, priority, queue_name, limit_key, task_name FROM procrastinate_jobs
         WHERE id = first.id AND status = 'todo' FOR UPDATE SKIP LOCKED) AS job
     WHERE job.queue_name = examined.queue_name
       AND NOT EXISTS (SELECT FROM procrastinate_jobs AS running
                        WHERE running.status = 'doing' AND running.lock = examined.lock)
), waiting_key (queue_name, key, task_name, is_paused) AS (
    SELECT %(after_key_queue)s::text, %(after_key)s::text, NULL::text,
           %(after_key_queue)s::text = ANY (ARRAY(SELECT queue_name FROM paused))
     UNION ALL
    SELECT following.queue_name, following.limit_key, following.task_name,
           following.queue_name = ANY (ARRAY(SELECT queue_name FROM paused))
      FROM waiting_key CROSS JOIN LATERAL (
        (SELECT queue_name::text, limit_key, task_name::text FROM procrastinate_jobs
          WHERE NOT waiting_key.is_paused
            AND status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NOT NULL
            AND (queue_name, limit_key) > (waiting_key.queue_name, waiting_key.key)
            AND (%(queues)s::text[] IS NULL OR queue_name = ANY (%(queues)s::text[]))
          ORDER BY queue_name, limit_key, ~priority, id LIMIT 1)
         UNION ALL
        (SELECT queue_name::text, limit_key, task_name::text FROM procrastinate_jobs
          WHERE waiting_key.is_paused
            AND status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NOT NULL
            AND queue_name > waiting_key.queue_name
            AND (%(queues)s::text[] IS NULL OR queue_name = ANY (%(queues)s::text[]))
          ORDER BY queue_name, limit_key, ~priority, id LIMIT 1)) AS following
), examined_key AS (
    SELECT queue_name, key, task_name FROM (SELECT * FROM waiting_key OFFSET 1) AS waiting
     WHERE NOT is_paused LIMIT %(lines)s::int
), slot AS MATERIALIZED (
    -- How many more may start of each key, as this statement sees it. A limit that is gone limits nothing.
    SELECT wanted.key, known.version,
           least(%(limit)s::int,
                 limits.concurrency - (SELECT count(*) FROM procrastinate_jobs AS running
                                        WHERE running.status = 'doing' AND running.limit_key = wanted.key),
                 floor(bucket.tokens))::int AS free,
           CASE WHEN bucket.tokens < 1 THEN (1 - bucket.tokens) * limits.seconds_a_start END AS seconds
      FROM (SELECT key, task_name FROM examined_key
             UNION
            SELECT limit_key, task_name FROM head WHERE limit_key IS NOT NULL) AS wanted
      LEFT JOIN limits ON limits.task_name = wanted.task_name
      LEFT JOIN limit_keys AS known ON known.key = wanted.key
      CROSS JOIN LATERAL (
        SELECT limits.burst - greatest(extract(epoch FROM known.full_at - now()), 0)::float8
                              / limits.seconds_a_start AS tokens) AS bucket
), new_key AS (
    INSERT INTO limit_keys (key) SELECT key FROM slot WHERE version IS NULL ORDER BY key
        ON CONFLICT (key) DO NOTHING
), held_key AS MATERIALIZED (
    SELECT key, version FROM limit_keys
     WHERE key = ANY (ARRAY(SELECT key FROM slot WHERE free > 0)) FOR NO KEY UPDATE SKIP LOCKED
), open_key AS MATERIALIZED (
    -- Nobody else starts any of it now, nor has since this statement began to see: what it has counted is the truth.
    SELECT slot.key, slot.free FROM slot JOIN held_key ON held_key.key = slot.key AND held_key.version = slot.version
), limited AS (
    SELECT id, priority
      FROM (SELECT id, priority, free, row_number() OVER (PARTITION BY key ORDER BY priority DESC, id) AS place
              FROM (SELECT job.id, job.priority, open_key.key, open_key.free
                      FROM examined_key JOIN open_key ON open_key.key = examined_key.key
                      CROSS JOIN LATERAL (
                        SELECT id, priority FROM procrastinate_jobs
                         WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL
                           AND limit_key IS NOT NULL AND limit_key = open_key.key
                           AND queue_name = examined_key.queue_name
                         ORDER BY ~priority, id LIMIT open_key.free FOR UPDATE SKIP LOCKED) AS job
                     UNION ALL
                    SELECT head.id, head.priority, open_key.key, open_key.free
                      FROM head JOIN open_key ON open_key.key = head.limit_key) AS job) AS job
     WHERE place <= free
), claimed AS (
    -- "= ANY (array)", here and below, is read by index, whatever the planner believes of the table's size.
    UPDATE procrastinate_jobs SET status = 'doing', worker_id = %(worker_id)s::bigint
     WHERE id = ANY (ARRAY(SELECT id FROM (SELECT * FROM ready
                                            UNION ALL SELECT id, priority FROM head WHERE limit_key IS NULL
                                            UNION ALL SELECT * FROM limited) AS candidate
                            ORDER BY priority DESC, id LIMIT %(limit)s::int))
    RETURNING *
), counted AS (
    UPDATE limit_keys AS key
       SET version = key.version + 1,
           full_at = coalesce(greatest(key.full_at, now()) + taken.count * limits.seconds_a_start * interval '1 second',
                              key.full_at)
      FROM (SELECT limit_key, task_name, count(*) FROM claimed
             WHERE limit_key IS NOT NULL GROUP BY limit_key, task_name) AS taken
      LEFT JOIN limits ON limits.task_name = taken.task_name
     WHERE key.key = taken.limit_key
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
    -- Where the next look at the locks and the keys begins, if this one has not seen them all; and when a look that
    -- finds nothing now would find something: at once where another worker has a key with room, else with a new token.
    SELECT (SELECT ARRAY[queue_name, lock] FROM examined OFFSET greatest(%(lines)s::int, 1) - 1) AS last_lock,
           (SELECT ARRAY[queue_name, key] FROM examined_key OFFSET greatest(%(lines)s::int, 1) - 1) AS last_key,
           (SELECT min(CASE WHEN free > 0 THEN 0 ELSE seconds END)
              FROM slot WHERE NOT key = ANY (ARRAY(SELECT key FROM open_key))) AS seconds,
           set_config('runledger.keeps_ledger', 'on', true)
)
SELECT page.last_lock, page.last_key, page.seconds, job.id, job.queue_name, job.task_name, job.priority, job.lock,
       job.queueing_lock, job.args, job.status, job.scheduled_at, job.attempts, job.abort_requested, job.worker_id,
       job.limit_key, run.id AS run_id, run.steps, run.crashes, run.is_late
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
WITH told AS (
    -- What a worker says of itself never changes: only its first beat writes it.
    INSERT INTO workers (id, host, pid, version, queues, actions, concurrency)
    SELECT %(worker_id)s::bigint, %(host)s::text, %(pid)s::int, %(version)s::text, %(queues)s::text[],
           %(actions)s::text[], %(concurrency)s::int
        ON CONFLICT (id) DO NOTHING
)
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
WITH gone AS (
    DELETE FROM workers WHERE NOT EXISTS (SELECT FROM procrastinate_workers AS known WHERE known.id = workers.id)
)
DELETE FROM procrastinate_workers AS worker
 WHERE last_heartbeat < now() - %(lease)s::float8 * interval '1 second'
   AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE worker_id = worker.id AND status = 'doing')
"""

_REGISTER_LIMITS = """
WITH declared AS (
    SELECT * FROM unnest(%(task_names)s::text[], %(concurrencies)s::int[], %(seconds_a_start)s::float8[],
                         %(bursts)s::int[], %(by_params)s::text[])
               AS declared (task_name, concurrency, seconds_a_start, burst, by_param)
), removed AS (
    DELETE FROM limits WHERE task_name = ANY (%(tasks)s::text[]) AND NOT task_name = ANY (%(task_names)s::text[])
), changed AS (
    INSERT INTO limits (task_name, concurrency, seconds_a_start, burst, by_param)
    SELECT * FROM declared ORDER BY task_name
        ON CONFLICT (task_name) DO UPDATE
       SET concurrency = excluded.concurrency, seconds_a_start = excluded.seconds_a_start, burst = excluded.burst,
           by_param = excluded.by_param,
           is_adopted = limits.is_adopted AND limits.by_param IS NOT DISTINCT FROM excluded.by_param
     WHERE (limits.concurrency, limits.seconds_a_start, limits.burst, limits.by_param) IS DISTINCT FROM
           (excluded.concurrency, excluded.seconds_a_start, excluded.burst, excluded.by_param)
    RETURNING task_name, is_adopted
)
SELECT task_name FROM changed WHERE NOT is_adopted
 UNION
SELECT task_name FROM limits WHERE NOT is_adopted AND task_name = ANY (%(task_names)s::text[])
"""

_ADOPT_LIMITED_JOBS = """
WITH page AS (
    SELECT id FROM procrastinate_jobs
     WHERE id > %(after)s::bigint AND status IN ('todo', 'doing') AND task_name = %(task_name)s::text
     ORDER BY id LIMIT %(limit)s::int
), adopted AS (
    UPDATE procrastinate_jobs AS job SET limit_key = runledger_limit_key_v1(job.task_name, limits.by_param, job.args)
      FROM limits
     WHERE job.id = ANY (ARRAY(SELECT id FROM page)) AND limits.task_name = job.task_name
)
SELECT max(id) AS last FROM page
"""

_END_ADOPTION = """
UPDATE limits SET is_adopted = true WHERE task_name = %(task_name)s::text
"""

_DELETE_IDLE_LIMIT_KEYS = """
DELETE FROM limit_keys AS key
 WHERE full_at < now() - interval '1 hour'
   AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'doing' AND limit_key = key.key)
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
SELECT task_name, periodic_id, cron, zone, params, missed, last_tick, now() AS now
  FROM schedules WHERE paused_at IS NULL
"""

_FIRE_SCHEDULE = """
WITH moved AS (
    UPDATE schedules SET last_tick = %(newest)s::timestamptz
     WHERE task_name = %(task_name)s::text AND periodic_id = %(periodic_id)s::text
       AND last_tick = %(before)s::timestamptz AND paused_at IS NULL
    RETURNING task_name, owner, params IS NOT NULL AS is_created,
              runledger_schedule_name_v1(task_name, periodic_id, params IS NOT NULL) AS name
), job AS (
    INSERT INTO procrastinate_jobs (task_name, queue_name, priority, lock, queueing_lock, args)
    SELECT moved.task_name, %(queue)s::text, %(priority)s::int, %(lock)s::text, %(queueing_lock)s::text,
           -- What the code schedules takes its tick; what a caller has created takes what the caller said.
           CASE WHEN is_created THEN %(args)s::text::jsonb
                ELSE %(args)s::text::jsonb || jsonb_build_object('timestamp', tick) END
      FROM moved, unnest(%(ticks)s::bigint[]) AS tick
        ON CONFLICT DO NOTHING
    RETURNING id, task_name, args, queue_name, priority, lock
), run AS (
    INSERT INTO action_runs (job_id, action, params, state, queue, priority, lock, owner, tags)
    SELECT job.id, job.task_name, job.args, 'queued', job.queue_name, job.priority, job.lock, moved.owner,
           ARRAY[left('schedule:' || moved.name, 64)]
      FROM job, moved WHERE position(':' IN job.task_name) = 0
)
SELECT id FROM job
"""


class AboutWorker(NamedTuple):
    """What a worker says of itself."""

    host: str
    pid: int
    version: str
    queues: Sequence[str] | None
    """`None`: all."""
    actions: Sequence[str]
    """The names of the tasks that it knows."""
    concurrency: int


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


Place = tuple[str, str]
"""A queue, and a lock or a key in it."""


class Claim(NamedTuple):
    """What a look at the queue has brought."""

    jobs: list[dict[str, Any]]
    """With what the ledger knows (`run_id`, `steps`, `crashes`, `is_late`; `None` for one without a run)."""
    last_lock: Place | None
    """Where the next look at the locks begins if this one did not see them all; and below, at the keys."""
    last_key: Place | None
    seconds: float | None
    """When there may be room under a limit that had none, or that another worker had in hand; `None`: when one ends."""


async def claim_jobs(
    database: Database,
    *,
    worker_id: int,
    limit: int,
    queues: Sequence[str] | None,
    lines: int,
    after_lock: Place,
    after_key: Place,
) -> Claim:
    """Take up to `limit` jobs that wait: the highest priority first, then the oldest, one a lock, within the limits.

    Args:
        queues: `None` for all.
        lines: how many locks, and how many keys of limits, to look at; 0 to leave those jobs alone.
        after_lock: behind which lock that look begins.
        after_key: behind which key.

    Raises:
        UniqueViolation: another worker has taken a lock at the same moment. Nothing is claimed.
    """
    rows = await database.execute_query_all_async(
        _CLAIM_JOBS, worker_id=worker_id, limit=limit, queues=queues, lines=lines, after_lock_queue=after_lock[0],
        after_lock=after_lock[1], after_key_queue=after_key[0], after_key=after_key[1],
    )  # fmt: skip
    return Claim(
        [row for row in rows if row["id"] is not None],
        _place(rows[0]["last_lock"]),
        _place(rows[0]["last_key"]),
        rows[0]["seconds"],
    )


def _place(pair: list[str] | None) -> Place | None:
    return (pair[0], pair[1]) if pair else None


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


async def beat(database: Database, *, worker_id: int, about: AboutWorker) -> None:
    """Say that a worker lives and what it is, and put its row back if another worker took it for dead."""
    await database.execute_query_all_async(_BEAT, worker_id=worker_id, **about._asdict())


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


async def register_limits(database: Database, *, limits: Mapping[str, Limit], tasks: Sequence[str]) -> list[str]:
    """Make known what the code limits, and that its other tasks have no limit.

    Returns:
        The limited tasks whose waiting jobs may not have the right keys.
    """
    rows = await database.execute_query_all_async(
        _REGISTER_LIMITS,
        task_names=list(limits),
        concurrencies=[limit.concurrency for limit in limits.values()],
        seconds_a_start=[limit.seconds_a_start for limit in limits.values()],
        bursts=[limit.burst for limit in limits.values()],
        by_params=[limit.by for limit in limits.values()],
        tasks=list(tasks),
    )
    return [row["task_name"] for row in rows]


async def adopt_limited_jobs(database: Database, *, task_name: str, after: int) -> int | None:
    """Give some of the jobs of a task, those after the job `after`, the keys of its limit.

    Returns:
        The `after` to go on with, or `None` if there are no more.
    """
    rows = await database.execute_query_all_async(
        _ADOPT_LIMITED_JOBS, task_name=task_name, after=after, limit=ADOPTED_AT_ONCE
    )
    return rows[0]["last"]


async def end_adoption(database: Database, *, task_name: str) -> None:
    """Note that all jobs of a limited task have their keys."""
    await database.execute_query_all_async(_END_ADOPTION, task_name=task_name)


async def delete_idle_limit_keys(database: Database) -> None:
    """Forget keys that nothing has started of for an hour. A claim makes those it needs anew."""
    await database.execute_query_all_async(_DELETE_IDLE_LIMIT_KEYS)


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
    """Every schedule that is not paused: `{task_name, periodic_id, cron, zone, params, missed, last_tick, now}`.

    Only those that somebody has created have `params` and `missed`.
    """
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
        args: JSON text, to which each job's `timestamp` is added if the code declares the schedule.

    Returns:
        How many jobs were inserted.
    """
    rows = await database.execute_query_all_async(
        _FIRE_SCHEDULE, task_name=name[0], periodic_id=name[1], before=before, newest=newest, ticks=list(ticks),
        queue=queue, priority=priority, lock=lock, queueing_lock=queueing_lock, args=args,
    )  # fmt: skip
    return len(rows)
