"""What can be done with runs: submit, read, list, cancel, retry, prune. Each is one transaction."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fastapi_rfc9457 import Problem
from procrastinate import exceptions
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.engine.connector import translated_errors
from app.engine.manager import JobManager
from app.errors import (
    AlreadyQueued,
    Fault,
    InvalidCursor,
    InvalidInput,
    QuotaExceeded,
    Refused,
    RunFinal,
    RunNotFailed,
    RunNotFound,
    TooBusy,
)
from app.outbound.postgres.database import autocommit
from app.runs import queries
from app.runs.actions import Action, Actions
from app.runs.intake import Intake
from app.runs.problems import faults
from app.runs.queries import NewRun, StoredRun
from app.runs.schemas import RUN_ID, RunCreate, RunPage, RunRead, read_run
from app.runs.state import RunState

PRUNE_BATCH = 500
_UNKNOWN_WEBHOOK = Fault(
    pointer="/webhook", detail="There is no such endpoint. POST /webhooks makes one.", type="unknown_webhook"
)
_ALREADY_QUEUED = "A run with this queueing lock is already waiting."


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from: who will see its runs, the trace that it is part of, and what the audit log says.

    `webhooks` are the endpoints that its runs may name.
    """

    owner: str | None = None
    trace_context: dict[str, str] | None = None
    actor: str | None = None
    """`None`: nobody outside, and nothing for the audit log."""
    route: str | None = None
    webhooks: frozenset[str] = frozenset()


HERE = Origin()
"""This program itself: its runs belong to nobody."""


async def submit(intake: Intake, action: Action, request: RunCreate, origin: Origin = HERE) -> RunRead:
    """Accept a request: its run and its job exist, durably, when this returns.

    Both are inserted by one statement, with the task's own defaults, as `Task.defer_async` would insert the job.

    Raises:
        InvalidInput: the params do not fit the action's input.
        AlreadyQueued: a run with the same queueing lock is waiting.
        TooBusy: too much is being submitted at this moment.
        QuotaExceeded: too many runs of this owner wait.
    """
    try:
        return read_run(await intake.store(_prepared(action, request, origin)))
    except exceptions.UniqueViolation as error:
        raise AlreadyQueued(detail=_ALREADY_QUEUED) from error


async def submit_all(
    intake: Intake, actions: Actions, requests: list[Any], origin: Origin = HERE
) -> list[str | Problem]:
    """Accept requests one by one, storing together those that can be.

    Args:
        requests: JSON; each should be a `RunCreate`.

    Returns:
        For each request the id of its run, or the problem that kept it out.

    Raises:
        ConnectorException: the database did not answer; some runs may have been stored.
    """
    prepared = [_prepared_or_problem(actions, n, request, origin) for n, request in enumerate(requests)]
    stored = iter(await intake.store_all([run for run in prepared if isinstance(run, dict)]))
    return [_outcome(next(stored)) if isinstance(run, dict) else run for run in prepared]


def _prepared_or_problem(actions: Actions, number: int, request: Any, origin: Origin) -> NewRun | Problem:
    try:
        checked = RunCreate.model_validate(request)
        return _prepared(actions.named(checked.action), checked, origin)
    except ValidationError as error:
        return InvalidInput(errors=faults(error, f"/runs/{number}"))
    except InvalidInput as problem:
        at = [fault.model_copy(update={"pointer": f"/runs/{number}{fault.pointer}"}) for fault in problem.errors]
        return InvalidInput(errors=at)
    except Refused as problem:
        return problem


def _outcome(stored: StoredRun | BaseException) -> str | Problem:
    match stored:
        case dict():
            return stored["id"]
        case exceptions.UniqueViolation():
            return AlreadyQueued(detail=_ALREADY_QUEUED)
        case TooBusy() | QuotaExceeded():
            return stored
        case _:
            raise stored


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


async def has_ended_at(engine: AsyncEngine, run_id: str, seq: int, *, owner: str | None = None) -> bool:
    """Whether a run has ended, and no event of it comes after `seq`.

    Raises:
        RunNotFound: there is none with that id.
    """
    row = await _row(engine, run_id, owner)
    return RunState(row.state).is_final and row.last_seq <= seq


async def list_page(engine: AsyncEngine, *, limit: int, cursor: str | None, **filters: Any) -> RunPage:
    """A page of runs, newest first.

    Args:
        filters: owner, action, state, queue, tag.

    Raises:
        InvalidCursor: the cursor is not one of ours.
    """
    before = None if cursor is None else _decode(cursor)
    async with autocommit(engine).connect() as connection:
        rows = await queries.list_runs(connection, limit=limit + 1, before=before, **filters)
    page = rows[:limit]
    return RunPage(items=[read_run(row) for row in page], next=_encode(page[-1].job_id) if len(rows) > limit else None)


async def cancel(engine: AsyncEngine, manager: JobManager, run_id: str, *, owner: str | None = None) -> RunRead:
    """Cancel a run that waits, or ask the worker of one that runs to stop it.

    Returns:
        The run: `cancelled`, or still `running` until its worker has heard.

    Raises:
        RunNotFound: there is none with that id.
        RunFinal: it has ended.
    """
    row = await _row(engine, run_id, owner)
    async with engine.begin() as connection:
        asked = await manager.cancel_job_by_id_async(row.job_id, abort=True, connection=connection)
    run = await get(engine, run_id)
    if not asked:
        raise RunFinal(detail=f"The run has already {_ended(run.state)}.", state=run.state)
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
        raise AlreadyQueued(detail=_ALREADY_QUEUED) from error
    run = await get(engine, run_id)
    if not requeued:
        raise RunNotFailed(detail="Only a run that failed or was cancelled can be retried.", state=run.state)
    return run


async def prune(engine: AsyncEngine, *, older_than: timedelta) -> int:
    """Delete runs that ended longer ago, the oldest first, in small batches, each its own transaction.

    Returns:
        How many runs were deleted.
    """
    deleted, after = 0, 0
    while after is not None:
        async with autocommit(engine).connect() as connection:
            batch, after = await queries.delete_ended_runs(
                connection, after=after, older_than=older_than, limit=PRUNE_BATCH
            )
        deleted += batch
    return deleted


async def _row(engine: AsyncEngine, run_id: str, owner: str | None) -> queries.RunRow:
    row = None
    if RUN_ID.fullmatch(run_id):
        async with autocommit(engine).connect() as connection:
            row = await queries.get_run(connection, run_id, owner=owner)
    if row is None:
        raise RunNotFound(detail="There is no run with that id.")
    return row


def _prepared(action: Action, request: RunCreate, origin: Origin) -> NewRun:
    """The request, checked, with what the task says where it is silent."""
    if request.webhook is not None and request.webhook not in origin.webhooks:
        raise InvalidInput(errors=[_UNKNOWN_WEBHOOK])
    task = action.task
    return {
        "action": action.name,
        "params": action.check(request.params),
        "queue": request.queue or task.queue,
        "priority": task.priority if request.priority is None else request.priority,
        "lock": request.lock or task.lock,
        "queueing_lock": request.queueing_lock or task.queueing_lock,
        "schedule_at": request.schedule_at and request.schedule_at.isoformat(),
        "start_deadline": request.start_deadline and request.start_deadline.isoformat(),
        "tags": request.tags,
        "max_attempts": action.retry.max_attempts,
        "trace_context": origin.trace_context,
        "owner": origin.owner,
        "webhook": request.webhook,
        "actor": origin.actor,
        "route": origin.route,
    }


def _ended(state: RunState) -> str:
    return "been cancelled" if state is RunState.CANCELLED else str(state)


def _encode(job_id: int) -> str:
    return base64.urlsafe_b64encode(job_id.to_bytes(8, "big")).decode().rstrip("=")


def _decode(cursor: str) -> int:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 8 or raw[0] & 0x80:
        raise InvalidCursor(detail="The cursor did not come from this API.")
    return int.from_bytes(raw, "big")
