"""What the command line asks the database about the server and its workers."""

from __future__ import annotations

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

_SERVER_VERSION = text("SELECT current_setting('server_version'), current_setting('server_version_num')::int")
_LIVING_WORKERS = text("""
    SELECT count(*) FROM procrastinate_workers
     WHERE last_heartbeat > now() - CAST(:lease AS float8) * interval '1 second'
""")
_SILENCE = text("""
    SELECT min(extract(epoch FROM now() - beat.last_heartbeat))::float8
      FROM workers JOIN procrastinate_workers AS beat USING (id)
     WHERE workers.host = :host
""")
_WAITING_RUNS = text("""
    SELECT count(*), extract(epoch FROM max(now() - coalesce(schedule_at, created_at)))::float8
      FROM action_runs
     WHERE state IN ('queued', 'scheduled', 'retrying') AND coalesce(schedule_at, created_at) <= now()
""")


async def get_server_version(connection: AsyncConnection) -> Row[str, int]:
    """In words, and as a number like 180001."""
    return (await connection.execute(_SERVER_VERSION)).one()


async def count_living_workers(connection: AsyncConnection, *, lease: float) -> int:
    """Those heard of within `lease` seconds."""
    return (await connection.execute(_LIVING_WORKERS, {"lease": lease})).scalar_one()


async def get_silence(connection: AsyncConnection, *, host: str) -> float | None:
    """Seconds since a worker of that host was heard of; `None`: there is none."""
    return (await connection.execute(_SILENCE, {"host": host})).scalar_one()


async def count_waiting_runs(connection: AsyncConnection) -> Row[int, float | None]:
    """Runs whose time has come and that no worker has claimed, and how many seconds the oldest has waited."""
    return (await connection.execute(_WAITING_RUNS)).one()
