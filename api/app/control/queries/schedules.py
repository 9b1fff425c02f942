"""Schedules: those of the code, as workers have registered them, and those of callers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

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
