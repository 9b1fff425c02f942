"""What the code limits, and the keys of it that jobs carry. What a claim may take of them is in `claim`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.engine.limits import Limit
from app.engine.queries.database import Database

ADOPTED_AT_ONCE = 1000


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


async def adopt_limited_jobs(database: Database, *, task_name: str, after: int) -> int | None:
    """Give some of the jobs of a task, those after the job `after`, the keys of its limit.

    Returns:
        The `after` to go on with, or `None` if there are no more.
    """
    rows = await database.execute_query_all_async(
        _ADOPT_LIMITED_JOBS, task_name=task_name, after=after, limit=ADOPTED_AT_ONCE
    )
    return rows[0]["last"]


_END_ADOPTION = """
UPDATE limits SET is_adopted = true WHERE task_name = %(task_name)s::text
"""


async def end_adoption(database: Database, *, task_name: str) -> None:
    """Note that all jobs of a limited task have their keys."""
    await database.execute_query_all_async(_END_ADOPTION, task_name=task_name)


_DELETE_IDLE_LIMIT_KEYS = """
DELETE FROM limit_keys AS key
 WHERE full_at < now() - interval '1 hour'
   AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'doing' AND limit_key = key.key)
"""


async def delete_idle_limit_keys(database: Database) -> None:
    """Forget keys that nothing has started of for an hour. A claim makes those it needs anew."""
    await database.execute_query_all_async(_DELETE_IDLE_LIMIT_KEYS)
