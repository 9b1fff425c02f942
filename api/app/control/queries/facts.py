"""What may keep one run from running."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.control.queries.workers import LIVE_WORKERS

_GET_FACTS = f"""
WITH live AS MATERIALIZED ({LIVE_WORKERS})
SELECT now() AS now, run.state, run.action, run.queue, run.attempt, run.error, run.worker_id, run.started_at,
       run.finished_at, job.scheduled_at AS due_at, coalesce(job.attempts, 0) AS attempts, run.snoozes,
       job.lock,
       wait.signal, (SELECT count(*)::int FROM run_children
                      WHERE parent_id = wait.run_id AND is_awaited AND wait.signal IS NULL) AS awaited,
       (SELECT count(*)::int FROM run_children WHERE parent_id = wait.run_id) AS children,
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


async def get_facts(
    connection: AsyncConnection, run_id: str, *, owner: str | None, lease: float, cap: int
) -> Row[Any] | None:
    """What may keep a run from running, if it is the owner's.

    Args:
        cap: how many of those that wait before it are counted.
    """
    arguments = {"run_id": run_id, "owner": owner, "lease": lease, "cap": cap}
    return (await connection.execute(text(_GET_FACTS), arguments)).first()
