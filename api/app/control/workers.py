"""Who works."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from app.control import queries
from app.control.schemas import WorkerList, WorkerRead
from app.outbound.postgres.database import autocommit


async def list_workers(engine: AsyncEngine, *, lease: float) -> WorkerList:
    """Every worker.

    Args:
        lease: after so many seconds without a heartbeat one is stale.
    """
    async with autocommit(engine).connect() as connection:
        rows = await queries.list_workers(connection, lease=lease)
    return WorkerList(items=[WorkerRead.model_validate(dict(row._mapping)) for row in rows])
