"""What runs are, and what they have told."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.engine.queries import Database
from app.runs.models import ActionRun, RunEvent
from app.runs.queries.submission import StoredRun

RunRow = Row[Any]
EventRow = Row[Any]

_RUN = (ActionRun.__table__, func.now().label("read_at"))
_LIST_NEW_EVENTS = """
SELECT event.run_id, event.seq, event.at, event.type, event.data
  FROM unnest(%(run_ids)s::text[], %(seqs)s::int[]) AS watched (run_id, seen)
  CROSS JOIN LATERAL (
    SELECT * FROM run_events WHERE run_id = watched.run_id AND seq > watched.seen
     ORDER BY seq LIMIT %(limit)s::int) AS event
"""
_LIST_RUNS_BY_ID = """
SELECT *, now() AS read_at FROM action_runs WHERE id = ANY (%(run_ids)s::text[]) ORDER BY job_id
"""


async def get_run(connection: AsyncConnection, run_id: str, *, owner: str | None = None) -> RunRow | None:
    """One run by its id, if it is the owner's."""
    statement = select(*_RUN).where(ActionRun.id == run_id)
    if owner is not None:
        statement = statement.where(ActionRun.owner == owner)
    return (await connection.execute(statement)).first()


async def list_events(connection: AsyncConnection, run_id: str, *, after: int, limit: int) -> list[EventRow]:
    """Events of a run whose `seq` is greater than `after`, in order."""
    statement = (
        select(RunEvent.__table__)
        .where(RunEvent.run_id == run_id, RunEvent.seq > after)
        .order_by(RunEvent.seq)
        .limit(limit)
    )
    return list((await connection.execute(statement)).all())


async def list_new_events(database: Database, seen: dict[str, int], *, limit: int) -> list[dict[str, Any]]:
    """The events of several runs, each run's after the `seq` that was seen, in order; up to `limit` of each."""
    return await database.execute_query_all_async(
        _LIST_NEW_EVENTS, run_ids=list(seen), seqs=list(seen.values()), limit=limit
    )


async def list_runs_by_id(database: Database, run_ids: Collection[str]) -> list[StoredRun]:
    """The runs of these ids, in the order of acceptance."""
    return await database.execute_query_all_async(_LIST_RUNS_BY_ID, run_ids=list(run_ids))
