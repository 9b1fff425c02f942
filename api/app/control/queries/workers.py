"""Workers. What lives is judged by the database's clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

LIVE_WORKERS = """
SELECT about.id, about.queues, about.actions, about.concurrency
  FROM workers AS about JOIN procrastinate_workers AS worker ON worker.id = about.id
 WHERE worker.last_heartbeat >= now() - CAST(:lease AS float8) * interval '1 second'
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


async def list_workers(connection: AsyncConnection, *, lease: float) -> Sequence[Row[Any]]:
    """Every worker that the database knows, and what it holds."""
    return (await connection.execute(text(_LIST_WORKERS), {"lease": lease})).all()
