"""Signals: what a run is told from outside. The first of a name counts, and is kept until somebody waits for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import RunFinal, RunLost, RunNotFound, RunWaits, SignalSent, SignalTimeout
from app.runs import queries, waits
from app.runs.queries import Holder
from app.runs.schemas import RUN, RUN_ID
from app.runs.state import RunState
from app.runs.values import check_storable


class SignalRead(BaseModel):
    """A signal that a run was sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "run_id": RUN["id"],
                    "name": "approved",
                    "data": {"by": "ada"},
                    "created_at": "2026-01-05T09:30:00Z",
                }
            ]
        }
    )

    run_id: str
    name: str
    data: Any = Field(description="What was sent with it: any JSON.")
    created_at: datetime


class Answer(BaseModel):
    """What came of waiting for a signal, as its step stores it."""

    data: Any = None
    has_timed_out: bool = False


async def send(engine: AsyncEngine, run_id: str, name: str, data: Any, *, owner: str | None) -> SignalRead:
    """Tell a run something: it is stored, and a run that waits for it goes on, when this returns.

    Sent again with the same data, it is what was sent first.

    Raises:
        RunNotFound: there is none with that id, or it is not the owner's.
        RunFinal: it has ended.
        SignalSent: it was sent this signal with other data.
        InvalidInput: the database cannot store the data.
    """
    check_storable(data, "")
    if not RUN_ID.fullmatch(run_id):
        raise RunNotFound(detail="There is no run with that id.")
    async with engine.begin() as connection:
        await waits.lock_wait(connection, run_id)
        run = await queries.get_run(connection, run_id, owner=owner)
        if run is None:
            raise RunNotFound(detail="There is no run with that id.")
        if RunState(run.state).is_final:
            raise RunFinal(detail="The run has ended, and waits for nothing.", state=run.state)
        await waits.insert_signal(connection, run_id, name=name, data=data)
        stored = await waits.get_signal(connection, run_id, name)
        assert stored is not None, "it was inserted, or was there"
        if stored.data != data:
            raise SignalSent(detail=f"The run was sent {name!r} with other data.")
        await waits.wake_for_signal(connection, run_id, name)
    return SignalRead(run_id=run_id, name=name, data=stored.data, created_at=stored.created_at)


async def receive(engine: AsyncEngine, holder: Holder, name: str, timeout: float | None) -> Answer:
    """What the run was told, or that it was not in time.

    Raises:
        RunWaits: neither, and the run is noted to wait for it.
    """
    async with engine.begin() as connection:
        await waits.lock_wait(connection, holder.run_id)
        itself = await waits.lock_held_run(connection, holder)
        if itself is None:
            raise RunLost
        if (signal := await waits.get_signal(connection, holder.run_id, name)) is not None:
            return Answer(data=signal.data)
        if await waits.await_signal(connection, holder.run_id, job_id=itself.job_id, name=name, timeout=timeout):
            return Answer(has_timed_out=True)
    raise RunWaits


def data_of(answer: Answer, name: str) -> Any:
    """What was told.

    Raises:
        SignalTimeout: nothing, in time.
    """
    if answer.has_timed_out:
        raise SignalTimeout(f"The signal {name!r} has not come in time.")
    return answer.data
