"""What workers say of themselves, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from app.engine.queries.database import Database


class AboutWorker(NamedTuple):
    """What a worker says of itself."""

    host: str
    pid: int
    version: str
    queues: Sequence[str] | None
    """`None`: all."""
    actions: Sequence[str]
    """The names of the tasks that it knows."""
    concurrency: int


_BEAT = """
WITH told AS (
    -- What a worker says of itself never changes: only its first beat writes it.
    INSERT INTO workers (id, host, pid, version, queues, actions, concurrency)
    SELECT %(worker_id)s::bigint, %(host)s::text, %(pid)s::int, %(version)s::text, %(queues)s::text[],
           %(actions)s::text[], %(concurrency)s::int
        ON CONFLICT (id) DO NOTHING
)
INSERT INTO procrastinate_workers (id, last_heartbeat) OVERRIDING SYSTEM VALUE
VALUES (%(worker_id)s::bigint, now())
    ON CONFLICT (id) DO UPDATE SET last_heartbeat = now()
"""


async def beat(database: Database, *, worker_id: int, about: AboutWorker) -> None:
    """Say that a worker lives and what it is, and put its row back if another worker took it for dead."""
    await database.execute_query_all_async(_BEAT, worker_id=worker_id, **about._asdict())


_LIST_HELD_JOBS = """
SELECT id, attempts, abort_requested FROM procrastinate_jobs
 WHERE status = 'doing' AND worker_id = %(worker_id)s::bigint
"""


async def list_held_jobs(database: Database, *, worker_id: int) -> list[dict[str, Any]]:
    """The jobs that a worker holds: `{id, attempts, abort_requested}`."""
    return await database.execute_query_all_async(_LIST_HELD_JOBS, worker_id=worker_id)


_DELETE_LOST_WORKERS = """
WITH gone AS (
    DELETE FROM workers WHERE NOT EXISTS (SELECT FROM procrastinate_workers AS known WHERE known.id = workers.id)
)
DELETE FROM procrastinate_workers AS worker
 WHERE last_heartbeat < now() - %(lease)s::float8 * interval '1 second'
   AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE worker_id = worker.id AND status = 'doing')
"""


async def delete_lost_workers(database: Database, *, lease: float) -> None:
    """Forget workers that have not been heard of for `lease` seconds and hold nothing."""
    await database.execute_query_all_async(_DELETE_LOST_WORKERS, lease=float(lease))


_NOTIFY_QUEUE_USAGE = """
SELECT pg_notification_queue_usage() AS usage
"""


async def notify_queue_usage(database: Database) -> float:
    """How much of the server's NOTIFY queue is taken, from 0 to 1; asking lets go of what everybody has heard.

    A full queue is not looked at by those who announce: it stays full, and refuses every commit that announces
    something, until somebody asks.
    """
    return (await database.execute_query_all_async(_NOTIFY_QUEUE_USAGE))[0]["usage"]
