"""Runs that failed for good, by what they failed of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

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
UPDATE action_runs SET discarded_at = now(), fingerprint = NULL
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
