"""Schedules, and the jobs of their ticks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from app.engine.queries.database import Database

_REGISTER_SCHEDULES = """
INSERT INTO schedules (task_name, periodic_id, cron, zone)
SELECT * FROM unnest(%(task_names)s::text[], %(periodic_ids)s::text[], %(crons)s::text[], %(zones)s::text[])
    ON CONFLICT (task_name, periodic_id) DO UPDATE
   SET cron = excluded.cron, zone = excluded.zone, last_tick = now()
 WHERE (schedules.cron, schedules.zone) <> (excluded.cron, excluded.zone)
"""


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


_LIST_SCHEDULES = """
SELECT task_name, periodic_id, cron, zone, params, missed, last_tick, now() AS now
  FROM schedules WHERE paused_at IS NULL
"""


async def list_schedules(database: Database) -> list[dict[str, Any]]:
    """Every schedule that is not paused: `{task_name, periodic_id, cron, zone, params, missed, last_tick, now}`.

    Only those that somebody has created have `params` and `missed`.
    """
    return await database.execute_query_all_async(_LIST_SCHEDULES)


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
