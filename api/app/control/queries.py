"""Every statement of control, one function each. What lives is judged by the database's clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Row, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

_LIVE_WORKERS = """
SELECT about.id, about.queues, about.actions, about.concurrency
  FROM workers AS about JOIN procrastinate_workers AS worker ON worker.id = about.id
 WHERE worker.last_heartbeat >= now() - CAST(:lease AS float8) * interval '1 second'
"""

_LIST_QUEUES = f"""
WITH live AS MATERIALIZED ({_LIVE_WORKERS}), depth AS MATERIALIZED (
    SELECT queue_name, runledger_run_state_v1(status, attempts, scheduled_at, abort_requested) AS state, count(*),
           min(id) FILTER (WHERE status = 'todo' AND coalesce(scheduled_at <= now(), true)) AS oldest
      FROM procrastinate_jobs
     WHERE status IN ('todo', 'doing') AND (CAST(:name AS text) IS NULL OR queue_name = :name)
     GROUP BY queue_name, state
), pause AS MATERIALIZED (
    SELECT * FROM queue_pauses WHERE resume_at IS NULL OR resume_at > now()
), queue (name) AS (
    SELECT CAST(:name AS text) WHERE CAST(:name AS text) IS NOT NULL
     UNION SELECT queue_name FROM depth
     UNION SELECT queue_name FROM pause
     UNION SELECT unnest(queues) FROM live
)
SELECT queue.name, depth.scheduled, depth.queued, depth.running, depth.retrying,
       extract(epoch FROM now() - oldest.created_at)::float8 AS oldest_seconds,
       worker.count AS workers, worker.slots,
       pause.paused_by, pause.reason, pause.paused_at, pause.resume_at
  FROM queue
  CROSS JOIN LATERAL (
    SELECT coalesce(sum(count) FILTER (WHERE state = 'scheduled'), 0)::int AS scheduled,
           coalesce(sum(count) FILTER (WHERE state = 'queued'), 0)::int AS queued,
           coalesce(sum(count) FILTER (WHERE state = 'running'), 0)::int AS running,
           coalesce(sum(count) FILTER (WHERE state = 'retrying'), 0)::int AS retrying,
           min(oldest) AS oldest
      FROM depth WHERE queue_name = queue.name) AS depth
  CROSS JOIN LATERAL (
    SELECT count(*)::int, coalesce(sum(concurrency), 0)::int AS slots
      FROM live WHERE queues IS NULL OR queue.name = ANY (queues)) AS worker
  LEFT JOIN action_runs AS oldest ON oldest.job_id = depth.oldest
  LEFT JOIN pause ON pause.queue_name = queue.name
 WHERE CAST(:name AS text) IS NULL OR queue.name = :name
 ORDER BY queue.name
"""  # noqa: S608 - made of constants

_PAUSE_QUEUE = """
INSERT INTO queue_pauses (queue_name, paused_by, reason, resume_at)
SELECT :name, :actor, :reason, :resume_at WHERE coalesce(:resume_at > now(), true)
    ON CONFLICT (queue_name) DO UPDATE
   SET paused_by = excluded.paused_by, reason = excluded.reason, paused_at = now(), resume_at = excluded.resume_at
RETURNING queue_name
"""

# The bell rings at commit: workers look at once.
_RESUME_QUEUE = """
WITH resumed AS (DELETE FROM queue_pauses WHERE queue_name = :name RETURNING queue_name)
SELECT runledger_ring_v1(array_agg(queue_name), 'job_inserted', 0) FROM resumed
"""

_LIST_WORKERS = """
SELECT worker.id, about.host, about.pid, about.version, about.queues, about.actions, about.concurrency,
       about.started_at, worker.last_heartbeat AS heartbeat_at,
       extract(epoch FROM now() - worker.last_heartbeat)::float8 AS heartbeat_seconds,
       worker.last_heartbeat < now() - CAST(:lease AS float8) * interval '1 second' AS is_stale,
       held.count AS running,
       ARRAY(SELECT run.id FROM procrastinate_jobs AS job JOIN action_runs AS run ON run.job_id = job.id
              WHERE job.worker_id = worker.id AND job.status = 'doing' ORDER BY job.id LIMIT 200) AS runs
  FROM procrastinate_workers AS worker
  LEFT JOIN workers AS about ON about.id = worker.id
  CROSS JOIN LATERAL (SELECT count(*)::int FROM procrastinate_jobs
                       WHERE worker_id = worker.id AND status = 'doing') AS held
 ORDER BY worker.id
"""

_GET_FACTS = f"""
WITH live AS MATERIALIZED ({_LIVE_WORKERS})
SELECT now() AS now, run.state, run.action, run.queue, run.attempt, run.error, run.worker_id, run.started_at,
       run.finished_at, job.scheduled_at AS due_at, coalesce(job.attempts, 0) AS attempts, job.lock,
       wait.signal, (SELECT count(*)::int FROM run_children
                      WHERE parent_id = wait.run_id AND is_awaited AND wait.signal IS NULL) AS awaited,
       CASE WHEN CAST(:owner AS text) IS NULL OR holder.owner = :owner THEN holder.id END AS holder_id,
       holder.since AS holder_since, coalesce(holder.is_held, false) AS is_held,
       pause.queue_name IS NOT NULL AS is_paused, pause.paused_by, pause.reason AS pause_reason, pause.resume_at,
       job.limit_key, limits.concurrency, of_key.count AS running_of_key, of_key.oldest AS oldest_of_key,
       known.full_at - (limits.burst - 1) * limits.seconds_a_start * interval '1 second' AS token_at,
       worker.listening, worker.knowing, worker.slots, line.ahead, past.mean_seconds
  FROM action_runs AS run
  LEFT JOIN procrastinate_jobs AS job ON job.id = run.job_id
  LEFT JOIN run_waits AS wait ON wait.run_id = run.id
  LEFT JOIN queue_pauses AS pause
         ON pause.queue_name = run.queue AND coalesce(pause.resume_at > now(), true)
  LEFT JOIN limits ON limits.task_name = run.action AND job.limit_key IS NOT NULL
  LEFT JOIN limit_keys AS known ON known.key = job.limit_key
  LEFT JOIN LATERAL (
    -- Who holds the lock; if nobody does, who waits for it before all others.
    SELECT other.id, other.owner, other.started_at AS since, candidate.is_held
      FROM (SELECT * FROM (SELECT id, true AS is_held FROM procrastinate_jobs
                            WHERE status = 'doing' AND lock = job.lock LIMIT 1) AS held
             UNION ALL
            SELECT * FROM (SELECT id, false FROM procrastinate_jobs
                            WHERE status = 'todo' AND scheduled_at IS NULL AND lock = job.lock
                            ORDER BY ~priority, id LIMIT 1) AS first) AS candidate
      LEFT JOIN action_runs AS other ON other.job_id = candidate.id
     WHERE candidate.id <> job.id
     ORDER BY candidate.is_held DESC LIMIT 1) AS holder ON true
  CROSS JOIN LATERAL (
    SELECT count(*)::int, min(other.started_at) AS oldest
      FROM procrastinate_jobs AS running LEFT JOIN action_runs AS other ON other.job_id = running.id
     WHERE running.status = 'doing' AND running.limit_key = job.limit_key) AS of_key
  CROSS JOIN LATERAL (
    SELECT count(*)::int AS listening,
           count(*) FILTER (WHERE run.action = ANY (actions))::int AS knowing,
           coalesce(sum(concurrency) FILTER (WHERE run.action = ANY (actions)), 0)::int AS slots
      FROM live WHERE queues IS NULL OR run.queue = ANY (queues)) AS worker
  CROSS JOIN LATERAL (
    -- In the line that it stands in: for a lock, for a place under a limit, or for a worker.
    SELECT count(*)::int AS ahead
      FROM (SELECT * FROM (SELECT id FROM procrastinate_jobs AS other
                            WHERE job.lock IS NOT NULL AND status = 'todo' AND scheduled_at IS NULL
                              AND lock = job.lock AND (~priority, id) < (~job.priority, job.id)
                            ORDER BY ~priority, id LIMIT :cap) AS locked
             UNION ALL
            SELECT * FROM (SELECT id FROM procrastinate_jobs AS other
                            WHERE job.lock IS NULL AND job.limit_key IS NOT NULL
                              AND status = 'todo' AND scheduled_at IS NULL AND lock IS NULL
                              AND queue_name = job.queue_name AND limit_key = job.limit_key
                              AND (~priority, id) < (~job.priority, job.id)
                            ORDER BY ~priority, id LIMIT :cap) AS limited
             UNION ALL
            SELECT * FROM (SELECT id FROM procrastinate_jobs AS other
                            WHERE job.lock IS NULL AND job.limit_key IS NULL
                              AND status = 'todo' AND scheduled_at IS NULL AND lock IS NULL AND limit_key IS NULL
                              AND queue_name = job.queue_name AND (~priority, id) < (~job.priority, job.id)
                            ORDER BY ~priority, id LIMIT :cap) AS ready) AS other) AS line
  CROSS JOIN LATERAL (
    SELECT avg(extract(epoch FROM finished_at - started_at))::float8 AS mean_seconds
      FROM (SELECT finished_at, started_at
              FROM (SELECT finished_at, started_at FROM action_runs AS other
                     WHERE other.action = run.action ORDER BY job_id DESC LIMIT 2000) AS recent
             WHERE finished_at IS NOT NULL AND started_at IS NOT NULL LIMIT 100) AS ended) AS past
 WHERE run.id = :run_id AND (CAST(:owner AS text) IS NULL OR run.owner = :owner)
"""  # noqa: S608


async def list_queues(connection: AsyncConnection, *, lease: float, name: str | None = None) -> Sequence[Row[Any]]:
    """Every queue that something waits or runs in, that is paused, or that a live worker names; or the one named.

    Args:
        lease: here and below, after so many seconds without a heartbeat a worker no longer lives.
    """
    return (await connection.execute(text(_LIST_QUEUES), {"lease": lease, "name": name})).all()


async def pause_queue(
    connection: AsyncConnection, *, name: str, actor: str, reason: str | None, resume_at: datetime | None
) -> bool:
    """Let no worker claim from a queue.

    Returns:
        Whether it is paused: not if `resume_at` has come already.
    """
    statement = text(_PAUSE_QUEUE).bindparams(
        bindparam("name", name, Text()),
        bindparam("actor", actor, Text()),
        bindparam("reason", reason, Text()),
        bindparam("resume_at", resume_at, DateTime(timezone=True)),
    )
    return (await connection.execute(statement)).first() is not None


async def resume_queue(connection: AsyncConnection, *, name: str) -> None:
    """Let workers claim from a queue again, at once."""
    await connection.execute(text(_RESUME_QUEUE), {"name": name})


async def list_workers(connection: AsyncConnection, *, lease: float) -> Sequence[Row[Any]]:
    """Every worker that the database knows, and what it holds."""
    return (await connection.execute(text(_LIST_WORKERS), {"lease": lease})).all()


async def get_facts(
    connection: AsyncConnection, run_id: str, *, owner: str | None, lease: float, cap: int
) -> Row[Any] | None:
    """What may keep a run from running, if it is the owner's.

    Args:
        cap: how many of those that wait before it are counted.
    """
    arguments = {"run_id": run_id, "owner": owner, "lease": lease, "cap": cap}
    return (await connection.execute(text(_GET_FACTS), arguments)).first()


# The run that a schedule has had last of all: of its action, with its tag, among the newest so many.
_LIST_SCHEDULES = """
SELECT known.*, now() AS now,
       runledger_schedule_name_v1(known.task_name, known.periodic_id, known.params IS NOT NULL) AS name,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'state', state, 'created_at', created_at)
                                  ORDER BY job_id DESC), '[]')
          FROM (SELECT id, state, created_at, job_id
                  FROM (SELECT id, state, created_at, job_id, tags FROM action_runs
                         WHERE action = known.task_name ORDER BY job_id DESC LIMIT 1000) AS recent
                 WHERE tags @> ARRAY[left('schedule:' || runledger_schedule_name_v1(
                           known.task_name, known.periodic_id, known.params IS NOT NULL), 64)]
                 ORDER BY job_id DESC LIMIT :runs) AS run) AS last_runs
  FROM schedules AS known
 WHERE CAST(:name AS text) IS NULL
    OR runledger_schedule_name_v1(known.task_name, known.periodic_id, known.params IS NOT NULL) = :name
 ORDER BY name
"""

_INSERT_SCHEDULE = """
INSERT INTO schedules (task_name, periodic_id, cron, zone, params, missed, owner, created_by)
VALUES (:task_name, :name, :cron, :zone, CAST(:params AS jsonb), CAST(:missed AS jsonb), :owner, :actor)
    ON CONFLICT DO NOTHING
RETURNING periodic_id
"""

_DELETE_SCHEDULE = """
DELETE FROM schedules WHERE periodic_id = :name AND params IS NOT NULL
"""

# A schedule of the code that no worker has registered yet can be paused before its first tick.
_PAUSE_SCHEDULE = """
INSERT INTO schedules (task_name, periodic_id, cron, zone, paused_at, paused_by)
VALUES (:task_name, :periodic_id, :cron, :zone, now(), :actor)
    ON CONFLICT (task_name, periodic_id) DO UPDATE SET paused_at = now(), paused_by = excluded.paused_by
"""

# The ticks of the pause are over.
_RESUME_SCHEDULE = """
UPDATE schedules SET paused_at = NULL, paused_by = NULL, last_tick = now()
 WHERE task_name = :task_name AND periodic_id = :periodic_id AND paused_at IS NOT NULL
"""


async def list_schedules(connection: AsyncConnection, *, runs: int, name: str | None = None) -> Sequence[Row[Any]]:
    """Every schedule that a worker has registered or somebody has created, or the one named, with its last `runs`."""
    return (await connection.execute(text(_LIST_SCHEDULES), {"runs": runs, "name": name})).all()


async def insert_schedule(
    connection: AsyncConnection,
    *,
    name: str,
    task_name: str,
    cron: str,
    zone: str,
    params: dict[str, Any],
    missed: str | int,
    owner: str | None,
    actor: str,
) -> bool:
    """Create a schedule, which begins now.

    Returns:
        Whether the name was free.
    """
    arguments = {
        "name": name,
        "task_name": task_name,
        "cron": cron,
        "zone": zone,
        "params": json.dumps(params),
        "missed": json.dumps(missed),
        "owner": owner,
        "actor": actor,
    }
    return (await connection.execute(text(_INSERT_SCHEDULE), arguments)).first() is not None


async def delete_schedule(connection: AsyncConnection, *, name: str) -> None:
    """Delete a schedule that somebody has created. Its runs stay."""
    await connection.execute(text(_DELETE_SCHEDULE), {"name": name})


async def pause_schedule(
    connection: AsyncConnection, *, task_name: str, periodic_id: str, cron: str, zone: str, actor: str
) -> None:
    """Let no worker fire a schedule."""
    arguments = {"task_name": task_name, "periodic_id": periodic_id, "cron": cron, "zone": zone, "actor": actor}
    await connection.execute(text(_PAUSE_SCHEDULE), arguments)


async def resume_schedule(connection: AsyncConnection, *, task_name: str, periodic_id: str) -> None:
    """Let workers fire a schedule again, from now on."""
    await connection.execute(text(_RESUME_SCHEDULE), {"task_name": task_name, "periodic_id": periodic_id})


_LIST_DEAD_LETTERS = """
SELECT letter.fingerprint, letter.count, letter.first_seen, letter.last_seen, run.id AS run_id, run.action, run.error
  FROM (SELECT fingerprint, count(*)::int, min(finished_at) AS first_seen, max(finished_at) AS last_seen,
               max(job_id) AS newest
          FROM action_runs
         WHERE fingerprint IS NOT NULL AND (CAST(:action AS text) IS NULL OR action = :action)
         GROUP BY fingerprint
        HAVING CAST(:seen AS timestamptz) IS NULL OR max(finished_at) < :seen
            OR (max(finished_at) = :seen AND fingerprint > :after)
         ORDER BY last_seen DESC, fingerprint LIMIT :limit) AS letter
  JOIN action_runs AS run ON run.job_id = letter.newest
 ORDER BY letter.last_seen DESC, letter.fingerprint
"""

_LIST_DEAD_JOBS = """
SELECT job_id FROM action_runs WHERE fingerprint = :fingerprint AND job_id > :after ORDER BY job_id LIMIT :limit
"""

_RETRY_FAILED_JOBS = """
UPDATE procrastinate_jobs SET status = 'todo', scheduled_at = NULL, abort_requested = false
 WHERE id = ANY (:job_ids) AND status = 'failed'
RETURNING id
"""

_DISCARD_FAILED_RUNS = """
UPDATE action_runs SET discarded_at = now()
 WHERE job_id = ANY (:job_ids) AND fingerprint = :fingerprint
RETURNING id
"""


async def list_dead_letters(
    connection: AsyncConnection, *, action: str | None, seen: datetime | None, after: str, limit: int
) -> Sequence[Row[Any]]:
    """Failures that are alike, those seen last first: how many, since when, and the newest run of each.

    Args:
        seen: when those were seen last behind which to begin, of which `after` is the last fingerprint.
    """
    arguments = {"action": action, "seen": seen, "after": after, "limit": limit}
    return (await connection.execute(text(_LIST_DEAD_LETTERS), arguments)).all()


async def list_dead_jobs(connection: AsyncConnection, *, fingerprint: str, after: int, limit: int) -> Sequence[int]:
    """The jobs of failed runs that are alike, in order, behind `after`."""
    arguments = {"fingerprint": fingerprint, "after": after, "limit": limit}
    return (await connection.scalars(text(_LIST_DEAD_JOBS), arguments)).all()


async def retry_failed_jobs(connection: AsyncConnection, *, job_ids: Sequence[int]) -> int:
    """Put jobs that have failed back into their queues.

    Returns:
        How many of them.

    Raises:
        UniqueViolation: another job waits under the queueing lock of one. None is put back.
    """
    return len((await connection.execute(text(_RETRY_FAILED_JOBS), {"job_ids": list(job_ids)})).all())


async def discard_failed_runs(connection: AsyncConnection, *, fingerprint: str, job_ids: Sequence[int]) -> int:
    """Note that somebody has seen enough of failures. The runs stay as they are.

    Returns:
        Of how many.
    """
    arguments = {"fingerprint": fingerprint, "job_ids": list(job_ids)}
    return len((await connection.execute(text(_DISCARD_FAILED_RUNS), arguments)).all())
