"""What can be done with runs that are there: read, list, cancel, retry, ask again, prune. Each is one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from procrastinate import exceptions
from sqlalchemy.ext.asyncio import AsyncEngine

from app.engine.connector import translated_errors
from app.engine.manager import JobManager
from app.errors import AlreadyQueued, RunFinal, RunNotFailed, RunNotFound
from app.outbound.postgres.database import autocommit
from app.runs import cursors, keys, pages, queries
from app.runs.schemas import RUN_ID, RunCreate, RunPage, RunRead, RunReplay, read_run
from app.runs.state import RunState
from app.runs.submission import ALREADY_QUEUED, Origin

PRUNE_BATCH = 500
KEYS_LIVE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Again:
    """A run as a request: it will belong to whom the run belongs."""

    request: RunCreate
    origin: Origin


async def get(engine: AsyncEngine, run_id: str, *, owner: str | None = None) -> RunRead:
    """One run.

    Args:
        owner: here and below, whose run it must be; `None`: anybody's.

    Raises:
        RunNotFound: there is none with that id.
    """
    return read_run(await _row(engine, run_id, owner))


async def get_traceback(engine: AsyncEngine, run_id: str, *, owner: str | None = None) -> str | None:
    """Where the last attempt that failed failed.

    Raises:
        RunNotFound: there is none with that id.
    """
    return (await _row(engine, run_id, owner)).traceback


async def list_page(
    engine: AsyncEngine, *, limit: int, cursor: str | None, count: Literal["estimated"] | None = None, **filters: Any
) -> RunPage:
    """A page of runs, newest first.

    Args:
        count: `estimated`: say about how many there are on all pages.
        filters: owner, action, state, queue, tag, since, until, q.

    Raises:
        InvalidCursor: the cursor is not one of ours.
    """
    before, onwards = (None, None) if cursor is None else cursors.read(cursor)
    async with autocommit(engine).connect() as connection:
        page = await pages.get_page(connection, limit=limit, before=before, onwards=onwards, **filters)
        total = await pages.estimate(connection, **filters) if count else None
    return RunPage(
        items=[read_run(row) for row in page.rows],
        next=None if page.last is None else cursors.downwards(page.last),
        prev=None if page.first is None else cursors.upwards(page.first),
        searched_until=page.searched_until,
        total_estimated=total,
    )


async def cancel(engine: AsyncEngine, manager: JobManager, run_id: str, *, owner: str | None = None) -> RunRead:
    """Cancel a run that waits, or ask the worker of one that runs to stop it.

    Returns:
        The run: `cancelled`, now or before, or still `running` until its worker has heard.

    Raises:
        RunNotFound: there is none with that id.
        RunFinal: it has succeeded or failed.
    """
    row = await _row(engine, run_id, owner)
    async with engine.begin() as connection:
        asked = await manager.cancel_job_by_id_async(row.job_id, abort=True, connection=connection)
    run = await get(engine, run_id)
    if not asked and run.state is not RunState.CANCELLED:
        raise RunFinal(detail=f"The run has already {run.state}.", state=run.state)
    return run


async def retry(engine: AsyncEngine, run_id: str, *, owner: str | None = None) -> RunRead:
    """Give a run that failed or was cancelled another attempt: the same run, its finished steps kept.

    Raises:
        RunNotFound: there is none with that id, or it was pruned at this moment.
        RunNotFailed: it has not failed, or its job has been deleted.
        AlreadyQueued: a run with the same queueing lock is waiting.
    """
    row = await _row(engine, run_id, owner)
    try:
        with translated_errors():
            async with autocommit(engine).connect() as connection:
                requeued = await queries.requeue_ended_job(connection, job_id=row.job_id)
    except exceptions.UniqueViolation as error:
        raise AlreadyQueued(detail=ALREADY_QUEUED) from error
    run = await get(engine, run_id)
    if not requeued:
        raise RunNotFailed(detail="Only a run that failed or was cancelled can be retried.", state=run.state)
    return run


async def again(engine: AsyncEngine, run_id: str, edited: RunReplay, *, owner: str | None = None) -> Again:
    """The request that a run was made from, with what is to be different.

    Raises:
        RunNotFound: there is none with that id.
    """
    row = await _row(engine, run_id, owner)
    # What is stored may have been made by SQL: the action judges its params, and nobody the rest.
    request = RunCreate.model_construct(
        action=row.action,
        params=row.params if edited.params is None else edited.params,
        queue=edited.queue or row.queue,
        priority=row.priority if edited.priority is None else edited.priority,
        lock=row.lock,
        max_attempts=row.max_attempts,
        tags=row.tags,
        webhook=row.webhook,
    )
    webhooks = frozenset({row.webhook} if row.webhook else ())
    return Again(request, Origin(row.owner, row.trace_context, webhooks=webhooks, replay_of=row.id))


async def prune(engine: AsyncEngine, *, older_than: timedelta) -> int:
    """Delete runs that ended longer ago, the oldest first, in small batches, each its own transaction.

    Before them the idempotency keys that have served their time.

    Returns:
        How many runs were deleted.
    """
    forgotten = PRUNE_BATCH
    while forgotten == PRUNE_BATCH:
        async with autocommit(engine).connect() as connection:
            forgotten = await keys.delete_idempotency_keys(connection, older_than=KEYS_LIVE, limit=PRUNE_BATCH)
    deleted, after = 0, 0
    while after is not None:
        async with autocommit(engine).connect() as connection:
            batch, after = await queries.delete_ended_runs(
                connection, after=after, older_than=older_than, limit=PRUNE_BATCH
            )
        deleted += batch
    return deleted


def may_be_pruned(run_id: str, *, older_than: timedelta) -> bool:
    """Whether a run of this id that is not there may have been deleted by `prune`: ids tell when it was accepted.

    The same for every id of that time, so that it tells nobody which there have been.
    """
    horizon = datetime.now(UTC) - older_than
    return RUN_ID.fullmatch(run_id) is not None and run_id < f"run_{horizon:%Y%m%dT%H%M%SZ}"


async def _row(engine: AsyncEngine, run_id: str, owner: str | None) -> queries.RunRow:
    row = None
    if RUN_ID.fullmatch(run_id):
        async with autocommit(engine).connect() as connection:
            row = await queries.get_run(connection, run_id, owner=owner)
    if row is None:
        raise RunNotFound(detail="There is no run with that id.")
    return row
