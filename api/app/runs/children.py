"""The children of a run: spawned once, waited for without a worker, cancelled with their parent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.journal import Outcome, Policy
from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.manager import JobManager
from app.errors import ChildFailed, Rejected, RunLost, RunWaits
from app.outbound.postgres.database import autocommit
from app.runs import queries, waits
from app.runs.queries import Holder, NewRun
from app.runs.state import RunState
from app.runs.within import Within

CANCEL_CHILDREN = "cancel_children"
"""The action that is submitted when a run with children is cancelled, by the trigger on ends."""

Ask = Callable[[str, dict[str, Any]], NewRun]
"""A run of an action with these params, checked, with the options of its task."""


class Children:
    """Those of one run, as its holder sees them."""

    def __init__(self, connector: SQLAlchemyAsyncConnector, manager: JobManager, holder: Holder, ask: Ask) -> None:
        self._connector = connector
        self._manager = manager
        self._holder = holder
        self._ask = ask
        self._spawned = 0

    async def spawn(self, asked: Sequence[tuple[str, dict[str, Any]]], *, key: str | None = None) -> list[str]:
        """Submit children, all in one transaction; those that were spawned by an earlier attempt are found.

        Args:
            asked: action and params of each.
            key: for a lone one, which it is; else its place among all that are spawned without a key says that.

        Returns:
            Their ids, in the order given.

        Raises:
            Rejected: what an earlier attempt spawned there was something else.
            UnknownAction: there is no such action.
            InvalidInput: the params do not fit its input.
        """
        runs = {self._key(key): self._ask(action, params) for action, params in asked}
        async with self._connector.engine.begin() as connection:
            parent = await waits.lock_held_run(connection, self._holder)
            if parent is None:
                raise RunLost
            there = await waits.list_children(connection, self._holder.run_id, keys=list(runs))
            for name, row in there.items():
                _check_same(name, runs[name], row, is_named=key is not None)
            inherited = {
                "parent_id": self._holder.run_id,
                "owner": parent.owner,
                "trace_context": parent.trace_context,
            }
            new = {name: run | inherited for name, run in runs.items() if name not in there}
            stored = await self._stored(Within(self._connector, connection), new)
            await waits.insert_children(connection, self._holder.run_id, stored)
        return [there[name].id if name in there else stored[name]["id"] for name in runs]

    async def gather(self, ids: Sequence[str], policy: Policy) -> list[Outcome]:
        """How these children have ended, in the order given.

        Raises:
            RunWaits: they have not, and the run is noted to wait for them.
            ChildFailed: by "cancel", one has failed; the others are cancelled.
            Rejected: one is no child of this run.
        """
        rows, is_over = await self._look_or_wait(ids, policy)
        if not is_over:
            raise RunWaits
        failed = next((row for row in rows if _has_failed(row)), None)
        if policy == "cancel" and failed is not None:
            unended = [row.job_id for row in rows if not RunState(row.state).is_final]
            await cancel_jobs(self._connector.engine, self._manager, unended)
            title = (failed.error or {}).get("title", "it was cancelled")
            raise ChildFailed(f"Child {failed.id} ({failed.action}) has {_ended(failed)}: {title}.")
        return [Outcome(row.id, str(row.state), row.result, row.error) for row in rows]

    async def _look_or_wait(self, ids: Sequence[str], policy: Policy) -> tuple[list[Row[Any]], bool]:
        run_id = self._holder.run_id
        async with self._connector.engine.begin() as connection:
            await waits.lock_wait(connection, run_id)
            itself = await waits.lock_held_run(connection, self._holder)
            if itself is None:
                raise RunLost
            found = await waits.list_outcomes(connection, run_id, ids=ids)
            if missing := [child_id for child_id in ids if child_id not in found]:
                raise Rejected(f"{missing[0]} is no child of this run: gather what spawn has returned.")
            rows = [found[child_id] for child_id in ids]
            unended = {row.id for row in rows if not RunState(row.state).is_final}
            is_over = not unended or (policy == "cancel" and any(map(_has_failed, rows)))
            if not is_over:
                await waits.await_children(connection, run_id, job_id=itself.job_id, ids=unended, policy=policy)
        return rows, is_over

    def _key(self, key: str | None) -> str:
        if key is not None:
            return f"={key}"
        self._spawned += 1
        return f"#{self._spawned}"

    async def _stored(self, database: Within, new: dict[str, NewRun]) -> dict[str, queries.StoredRun]:
        if not new:
            return {}
        rows = await queries.insert_runs(database, list(new.values()))
        return {name: row for name, row in zip(new, rows, strict=True) if row is not None}


async def cancel_orphans(engine: AsyncEngine, manager: JobManager, parent_id: str, *, asker_id: str) -> int:
    """Cancel those children of a cancelled run that have not ended.

    Anybody may submit this, with whatever id: nothing is done to runs of others, or to children of a run that goes on.

    Returns:
        How many were cancelled, or asked to stop.
    """
    async with autocommit(engine).connect() as connection:
        orphans = await waits.list_orphans(connection, parent_id, asker_id=asker_id)
    return await cancel_jobs(engine, manager, orphans)


async def cancel_jobs(engine: AsyncEngine, manager: JobManager, job_ids: Sequence[int]) -> int:
    """Cancel jobs that wait, and ask the workers of those that run to stop them; each in a transaction of its own.

    Returns:
        Of how many that was so: the others have ended.
    """
    asked = 0
    for job_id in job_ids:
        async with engine.begin() as connection:
            asked += await manager.cancel_job_by_id_async(job_id, abort=True, connection=connection)
    return asked


def _check_same(name: str, asked: NewRun, there: Row[Any], *, is_named: bool) -> None:
    if asked["action"] == there.action and (is_named or asked["params"] == there.params):
        return
    raise Rejected(
        f"Spawn {name[1:]} of this run was {there.action} with other params in an earlier attempt. What comes before "
        "a spawn must come out the same in each attempt: put it into a step, or give the spawn a key."
    )


def _has_failed(row: Row[Any]) -> bool:
    return row.state in (RunState.FAILED, RunState.CANCELLED)


def _ended(row: Row[Any]) -> str:
    return "been cancelled" if row.state == RunState.CANCELLED else "failed"
