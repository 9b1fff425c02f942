"""Queues: what waits and runs in each, and which are paused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Row, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.control.queries.workers import LIVE_WORKERS

_LIST_QUEUES = f"""
WITH live AS MATERIALIZED ({LIVE_WORKERS}), depth AS MATERIALIZED (
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
       extract(epoch FROM now() - greatest(oldest.created_at, oldest.schedule_at))::float8 AS oldest_seconds,
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
