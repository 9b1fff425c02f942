"""What can be done with queues."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.control import queries
from app.control.schemas import QueueList, QueuePauseCreate, QueuePauseRead, QueueRead
from app.errors import Fault, InvalidInput
from app.outbound.postgres.database import autocommit

_IN_THE_PAST = Fault(pointer="/resume_at", detail="The time has passed already.", type="time_in_the_past")


async def list_queues(engine: AsyncEngine, *, lease: float) -> QueueList:
    """Every queue.

    Args:
        lease: here and below, after so many seconds without a heartbeat a worker no longer lives.
    """
    async with autocommit(engine).connect() as connection:
        return QueueList(items=[_queue(row) for row in await queries.list_queues(connection, lease=lease)])


async def pause(engine: AsyncEngine, name: str, request: QueuePauseCreate, *, actor: str, lease: float) -> QueueRead:
    """Let no worker claim from a queue; what runs goes on. Pausing again replaces the reason and the time.

    Raises:
        InvalidInput: the time to resume has passed.
    """
    async with engine.begin() as connection:
        is_paused = await queries.pause_queue(
            connection, name=name, actor=actor, reason=request.reason, resume_at=request.resume_at
        )
        if not is_paused:
            raise InvalidInput(errors=[_IN_THE_PAST])
        [row] = await queries.list_queues(connection, name=name, lease=lease)
    return _queue(row)


async def resume(engine: AsyncEngine, name: str, *, lease: float) -> QueueRead:
    """Let workers claim from a queue again. One that is not paused stays as it is."""
    async with engine.begin() as connection:
        await queries.resume_queue(connection, name=name)
        [row] = await queries.list_queues(connection, name=name, lease=lease)
    return _queue(row)


def _queue(row: Row[Any]) -> QueueRead:
    queue = row._mapping
    paused = None
    if row.paused_at is not None:
        paused = QueuePauseRead(by=row.paused_by, reason=row.reason, at=row.paused_at, resume_at=row.resume_at)
    return QueueRead(
        **{name: queue[name] for name in QueueRead.model_fields if name != "paused"},
        paused=paused,
    )
