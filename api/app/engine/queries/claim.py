"""Which jobs a worker takes, and when those that are scheduled begin to wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from app.engine.queries.database import Database

_KNOWN = """
keeping AS MATERIALIZED (
    -- This writes all that the triggers would. It is joined to what is changed, so that it is said before they ask.
    SELECT set_config('runledger.keeps_ledger', 'all', true)
), paused (queue_name) AS MATERIALIZED (
    SELECT queue_name FROM queue_pauses WHERE resume_at IS NULL OR resume_at > now()
), others (wait) AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM procrastinate_jobs
                    WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NOT NULL)
        OR EXISTS (SELECT FROM procrastinate_jobs
                    WHERE status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NOT NULL)
)
"""
"""What every claim has to know: which queues are paused, and whether any job waits for a lock or under a limit."""

_READY = """
ready_queue (name) AS (
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
)
"""
"""The first of those that need no lock and have no limit."""

_HEADS = """
waiting_lock (queue_name, lock, is_paused) AS (
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
)
"""
"""The first of each line at a free lock: of the locks from a place on, at most so many."""

_WITHIN_LIMITS = """
waiting_key (queue_name, key, task_name, is_paused) AS (
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
)
"""
"""Those that limits leave room for: of the keys from a place on, at most so many."""

_TAKEN = """
claimed AS (
    -- "= ANY (array)", here and below, is read by index, whatever the planner believes of the table's size.
    UPDATE procrastinate_jobs AS job SET status = 'doing', worker_id = %(worker_id)s::bigint
      FROM keeping
     WHERE job.id = ANY (ARRAY(SELECT id FROM candidate ORDER BY priority DESC, id LIMIT %(limit)s::int))
    RETURNING job.*
), noted AS (
    INSERT INTO procrastinate_events (job_id, type) SELECT id, 'started' FROM claimed
), started AS (
    UPDATE action_runs AS run
       SET state = 'running', trouble = NULL, attempt = claimed.attempts + 1, worker_id = claimed.worker_id,
           started_at = now(), last_seq = run.last_seq + 1
      FROM claimed
     WHERE run.job_id = claimed.id AND run.job_id = ANY (ARRAY(SELECT id FROM claimed))
    RETURNING run.id, run.job_id, run.owner, run.attempt, run.last_seq, run.steps, run.crashes, run.snoozes,
              run.max_attempts, run.started_at,
              coalesce(run.start_deadline < now() AND claimed.attempts = 0 AND run.crashes = 0, false) AS is_late
), told AS (
    INSERT INTO run_events (run_id, seq, type, data)
    SELECT id, last_seq, 'state', jsonb_build_object('state', 'running', 'attempt', attempt) FROM started
)
"""
"""What is taken of the candidates, noted in Procrastinate's events and told of its run."""

_COUNTED = """
counted AS (
    UPDATE limit_keys AS key
       SET version = key.version + 1,
           full_at = coalesce(greatest(key.full_at, now()) + taken.count * limits.seconds_a_start * interval '1 second',
                              key.full_at)
      FROM (SELECT limit_key, task_name, count(*) FROM claimed
             WHERE limit_key IS NOT NULL GROUP BY limit_key, task_name) AS taken
      LEFT JOIN limits ON limits.task_name = taken.task_name
     WHERE key.key = taken.limit_key
)
"""
"""What is taken under a limit, counted."""

_FOUND = """
SELECT page.*, job.id, job.queue_name, job.task_name, job.priority, job.lock, job.queueing_lock, job.args, job.status,
       job.scheduled_at, job.attempts, job.abort_requested, job.worker_id, job.limit_key, run.id AS run_id, run.owner,
       run.steps, run.crashes, run.snoozes, run.is_late, run.max_attempts, run.started_at AS claimed_at,
       (SELECT pg_notify('runledger_events', CASE WHEN count(*) > 100 THEN '*' ELSE string_agg(id, ' ') END)
          FROM started HAVING count(*) > 0) AS rung
  FROM page
  LEFT JOIN claimed AS job ON true
  LEFT JOIN started AS run ON run.job_id = job.id
 ORDER BY job.priority DESC, job.id
"""

_CLAIM_READY_JOBS = f"""
WITH RECURSIVE {_KNOWN}, {_READY}, candidate AS (SELECT id, priority FROM ready WHERE NOT (SELECT wait FROM others)),
{_TAKEN}, page AS (SELECT wait AS others_wait FROM others)
{_FOUND}
"""  # noqa: S608  (its parts are the constants above)

_CLAIM_JOBS = f"""
WITH RECURSIVE {_KNOWN}, {_READY}, {_HEADS}, {_WITHIN_LIMITS}, candidate AS (
    SELECT * FROM ready
     UNION ALL SELECT id, priority FROM head WHERE limit_key IS NULL
     UNION ALL SELECT * FROM limited
), {_TAKEN}, {_COUNTED}, page AS (
    -- Where the next look at the locks and the keys begins, if this one has not seen them all; and when a look that
    -- finds nothing now would find something: at once where another worker has a key with room, else with a new token.
    SELECT (SELECT wait FROM others) AS others_wait,
           (SELECT ARRAY[queue_name, lock] FROM examined OFFSET greatest(%(lines)s::int, 1) - 1) AS last_lock,
           (SELECT ARRAY[queue_name, key] FROM examined_key OFFSET greatest(%(lines)s::int, 1) - 1) AS last_key,
           (SELECT min(CASE WHEN free > 0 THEN 0 ELSE seconds END)
              FROM slot WHERE NOT key = ANY (ARRAY(SELECT key FROM open_key))) AS seconds
)
{_FOUND}
"""  # noqa: S608


Place = tuple[str, str]
"""A queue, and a lock or a key in it."""


class Claim(NamedTuple):
    """What a look at the queue has brought."""

    jobs: list[dict[str, Any]]
    """With what the ledger knows: `run_id`, `owner`, `steps`, `crashes` … `max_attempts`; `None` without a run."""
    others_wait: bool
    """Whether any job, of whichever queue, waits for a lock or under a limit."""
    last_lock: Place | None = None
    """Where the next look at the locks begins if this one did not see them all; and below, at the keys."""
    last_key: Place | None = None
    seconds: float | None = None
    """When there may be room under a limit that had none, or that another worker had in hand; `None`: when one ends."""


async def claim_ready_jobs(database: Database, *, worker_id: int, limit: int, queues: Sequence[str] | None) -> Claim:
    """As `claim_jobs`, while no job waits for a lock or under a limit: else nothing is taken.

    What one job waits for on an idle system is mostly that its statement is set up, and this one is half as long.
    """
    rows = await database.execute_query_all_async(_CLAIM_READY_JOBS, worker_id=worker_id, limit=limit, queues=queues)
    return Claim(_jobs(rows), rows[0]["others_wait"])


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
    first = rows[0]
    return Claim(
        _jobs(rows), first["others_wait"], _place(first["last_lock"]), _place(first["last_key"]), first["seconds"]
    )


def _jobs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # A claim that takes nothing answers with one row, which has no job.
    return [row for row in rows if row["id"] is not None]


def _place(pair: list[str] | None) -> Place | None:
    return (pair[0], pair[1]) if pair else None


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


async def release_due_jobs(database: Database, *, limit: int) -> tuple[int, float | None]:
    """Let jobs whose time has come wait like those that were never scheduled.

    Returns:
        How many there were, and the seconds until the next is due.
    """
    rows = await database.execute_query_all_async(_RELEASE_DUE_JOBS, limit=limit)
    return rows[0]["released"], rows[0]["seconds"]
