"""How much waits, runs and has failed, for whoever watches a dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.control.queries.workers import LIVE_WORKERS

# Who has waited longest: of those whose time a worker has not seen come the first, of the others the first accepted.
_COUNT_JOBS = """
WITH counted AS MATERIALIZED (
    SELECT queue_name AS queue, runledger_run_state_v1(status, attempts, scheduled_at, abort_requested) AS state,
           count(*)::int AS jobs, min(scheduled_at) FILTER (WHERE status = 'todo' AND scheduled_at <= now()) AS due,
           min(id) FILTER (WHERE status = 'todo' AND scheduled_at IS NULL) AS first
      FROM procrastinate_jobs
     WHERE status IN ('todo', 'doing')
     GROUP BY queue, state
)
SELECT counted.queue, counted.state, counted.jobs,
       extract(epoch FROM now() - least(counted.due, greatest(run.created_at, run.schedule_at)))::float8
         AS waited_seconds
  FROM counted LEFT JOIN action_runs AS run ON run.job_id = counted.first
 ORDER BY sum(counted.jobs) OVER (PARTITION BY counted.queue) DESC, counted.queue, counted.state
"""

_GET_TOTALS = f"""
WITH live AS MATERIALIZED ({LIVE_WORKERS})
SELECT (SELECT coalesce(sum(concurrency), 0)::int FROM live) AS slots,
       (SELECT count(*)::int FROM procrastinate_jobs
         WHERE status = 'doing' AND worker_id IN (SELECT id FROM live)) AS busy,
       (SELECT count(*)::int FROM action_runs WHERE fingerprint IS NOT NULL) AS dead_letters
"""  # noqa: S608 - made of constants


async def count_jobs(connection: AsyncConnection) -> Sequence[Row[Any]]:
    """How many jobs there are of each queue and state, and for how long the first of them has waited for a worker.

    Those of the fullest queues first.
    """
    return (await connection.execute(text(_COUNT_JOBS))).all()


async def get_totals(connection: AsyncConnection, *, lease: float) -> Row[Any]:
    """Slots of the workers that live, how many of them are taken, and how many runs have failed for good.

    Args:
        lease: after so many seconds without a heartbeat a worker no longer lives.
    """
    return (await connection.execute(text(_GET_TOTALS), {"lease": lease})).one()
