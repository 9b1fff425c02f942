"""Unique runs: who submits under a key waits for whoever submits under it at the same moment."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from app.engine.connector import SQLAlchemyAsyncConnector
from app.errors import IdempotencyInFlight, NotUnique
from app.runs import keys, queries
from app.runs.queries import NewRun, RunRow
from app.runs.schemas import OnConflict, Unique, UniqueScope, read_run
from app.runs.stored import IN_FLIGHT, Found, Stored, replayed
from app.runs.within import Within


async def store_unique(connector: SQLAlchemyAsyncConnector, run: NewRun, unique: Unique) -> Stored:
    """Store a run, its job and its key in one transaction, unless a run of the key stands in the way.

    Raises:
        NotUnique: one does, and it may not be returned or cannot be replaced.
        IdempotencyKeyReused: its idempotency key was sent with something else.
        IdempotencyInFlight: the same idempotency key is being stored at this moment.
        UniqueViolation: a run with the same queueing lock is waiting.
    """
    place = {"owner": run["owner"] or "", "action": run["action"], "key": unique.key}
    async with connector.engine.begin() as connection:
        newest = await keys.lock_unique_run(connection, **place)
        # Looked up under the lock: the first of two equal requests may have stored its run while this one waited.
        if (original := await _original(connection, run)) is not None:
            return replayed(run, original)
        holder = await _holder(connection, newest, unique.scope)
        if holder is not None and unique.on_conflict is OnConflict.RETURN_EXISTING:
            return Stored(dict(holder._mapping), Found.EXISTING)
        replaced = holder if holder is not None and await _gives_way(connection, holder, unique) else None
        [stored] = await queries.insert_runs(Within(connector, connection), [run])
        if stored is None:
            raise IdempotencyInFlight(detail=IN_FLIGHT)
        await keys.set_unique_run(connection, **place, job_id=stored["job_id"])
        if replaced is not None:
            await keys.set_error(connection, job_id=replaced.job_id, error=_replaced_by(stored["id"]))
    return Stored(stored, replaced=None if replaced is None else replaced.id)


async def _original(connection: AsyncConnection, run: NewRun) -> RunRow | None:
    if "idempotency_key" not in run:
        return None
    key = (run["principal"], run["idempotency_key"])
    return (await keys.list_originals(connection, [key])).get(key)


async def _holder(connection: AsyncConnection, newest: int | None, scope: UniqueScope) -> RunRow | None:
    if newest is None:
        return None
    holder = await keys.get_unended_run(connection, job_id=newest)
    return holder if holder is not None and (holder.waits or scope is UniqueScope.UNENDED) else None


async def _gives_way(connection: AsyncConnection, holder: RunRow, unique: Unique) -> bool:
    """Whether the run that is there was cancelled; not, if it has just begun and only those that wait count."""
    if unique.on_conflict is OnConflict.REPLACE:
        if await keys.cancel_waiting_job(connection, job_id=holder.job_id):
            return True
        if unique.scope is UniqueScope.WAITING:
            return False
    state = read_run(holder).state
    raise NotUnique(detail=f"Run {holder.id} has this key, and is {state}.", run_id=holder.id, state=state)


def _replaced_by(run_id: str) -> dict[str, Any]:
    return {"type": "/problems/replaced", "title": "Replaced", "detail": f"Run {run_id} took its place."}
