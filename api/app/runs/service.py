"""What can be done with runs: submit, read, list, cancel, retry, prune. Each is one transaction."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from fastapi_rfc9457 import Problem
from procrastinate import exceptions
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.engine.connector import translated_errors
from app.engine.manager import JobManager
from app.errors import (
    AlreadyQueued,
    Fault,
    IdempotencyInFlight,
    InvalidCursor,
    InvalidInput,
    Refused,
    RunFinal,
    RunNotFailed,
    RunNotFound,
)
from app.outbound.postgres.database import autocommit
from app.runs import keys, pages, queries
from app.runs.actions import Action, Actions
from app.runs.idempotency import Idempotency
from app.runs.intake import Intake
from app.runs.problems import faults
from app.runs.queries import NewRun
from app.runs.schemas import RUN_ID, BatchItem, RunCreate, RunPage, RunRead, RunReplay, Unique, read_run
from app.runs.state import RunState
from app.runs.stored import IN_FLIGHT, Found, Stored, replayed

PRUNE_BATCH = 500
_UNKNOWN_WEBHOOK = Fault(
    pointer="/webhook", detail="There is no such endpoint. POST /webhooks makes one.", type="unknown_webhook"
)
KEYS_LIVE = timedelta(hours=24)
_ALREADY_QUEUED = "A run with this queueing lock is already waiting."


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from: who will see its runs, the trace that it is part of, and the key it may come with.

    `actor` and `route` are for the audit log; without an actor it says nothing.

    `webhooks` are the endpoints that its runs may name.
    """

    owner: str | None = None
    trace_context: dict[str, str] | None = None
    key: Idempotency | None = None
    replay_of: str | None = None
    """The run that it repeats."""
    actor: str | None = None
    route: str | None = None
    webhooks: frozenset[str] = frozenset()
    sent: BaseModel | None = None
    """What came with the key, if that was not the request itself."""


HERE = Origin()
"""This program itself: its runs belong to nobody."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The run of an accepted request."""

    run: RunRead
    found: Found
    replaced: str | None
    """The run whose place it took."""


@dataclass(frozen=True, slots=True)
class Again:
    """A run as a request: it will belong to whom the run belongs."""

    request: RunCreate
    origin: Origin


async def submit(intake: Intake, action: Action, request: RunCreate, origin: Origin = HERE) -> RunRead:
    """The run of `accept`."""
    return (await accept(intake, action, request, origin)).run


async def accept(intake: Intake, action: Action, request: RunCreate, origin: Origin = HERE) -> Accepted:
    """Accept a request: its run and its job exist, durably, when this returns.

    Both are inserted by one statement, with the task's own defaults, as `Task.defer_async` would insert the job.

    Raises:
        InvalidInput: the params do not fit the action's input.
        AlreadyQueued: a run with the same queueing lock is waiting.
        NotUnique: a run with the same unique key is in the way.
        IdempotencyKeyReused: the key was sent with something else.
        IdempotencyInFlight: the first request with the key is being stored.
        TooBusy: too much is being submitted at this moment.
        QuotaExceeded: too many runs of this owner wait.
    """
    try:
        stored = await intake.store(_prepared(action, request, origin), request.unique)
    except exceptions.UniqueViolation as error:
        raise AlreadyQueued(detail=_ALREADY_QUEUED) from error
    return Accepted(read_run(stored.run), stored.found, stored.replaced)


async def submit_within(
    intake: Intake, connection: AsyncConnection, action: Action, request: RunCreate, origin: Origin = HERE
) -> RunRead:
    """Accept a request as part of the caller's transaction: its run is there, and starts, when that commits.

    Raises:
        InvalidInput: the params do not fit the action's input.
        IdempotencyInFlight: another request with the key is being stored.
        QuotaExceeded: too many runs of this owner wait.
    """
    return read_run((await intake.store_within(connection, _prepared(action, request, origin))).run)


async def submitted_before(connection: AsyncConnection, origin: Origin) -> str | None:
    """The run of `submit_within`, if the request was sent before; if not, nobody else sends it at the same time.

    Raises:
        IdempotencyKeyReused: the key was sent with something else.
        IdempotencyInFlight: the first request with the key is being stored.
    """
    if origin.key is None or origin.sent is None:
        return None
    place = (origin.key.principal, origin.key.key)
    if not await keys.try_lock_key(connection, place):
        raise IdempotencyInFlight(detail=IN_FLIGHT)
    original = (await keys.list_originals(connection, [place])).get(place)
    return None if original is None else replayed(origin.key.stamp(origin.sent), original).run["id"]


async def submit_all(
    intake: Intake, actions: Actions, requests: list[Any], origin: Origin = HERE
) -> list[BatchItem | Problem]:
    """Accept requests one by one, storing together those that can be.

    Args:
        requests: JSON; each should be a `RunCreate`.
        origin: with a key, each request has that key and its number.

    Returns:
        For each request the id of its run, or the problem that kept it out.

    Raises:
        ConnectorException: the database did not answer; some runs may have been stored.
    """
    prepared = [_prepared_or_problem(actions, n, request, origin) for n, request in enumerate(requests)]
    stored = iter(await intake.store_all([run for run in prepared if isinstance(run, tuple)]))
    return [_outcome(next(stored)) if isinstance(run, tuple) else run for run in prepared]


def _prepared_or_problem(
    actions: Actions, number: int, request: Any, origin: Origin
) -> tuple[NewRun, Unique | None] | Problem:
    try:
        checked = RunCreate.model_validate(request)
        if origin.key is not None:
            origin = replace(origin, key=origin.key.of_item(number))
        return _prepared(actions.named(checked.action), checked, origin), checked.unique
    except ValidationError as error:
        return InvalidInput(errors=faults(error, f"/runs/{number}"))
    except InvalidInput as problem:
        at = [fault.model_copy(update={"pointer": f"/runs/{number}{fault.pointer}"}) for fault in problem.errors]
        return InvalidInput(errors=at)
    except Refused as problem:
        return problem


def _outcome(stored: Stored | BaseException) -> BatchItem | Problem:
    match stored:
        case Stored(run=run, replaced=replaced):
            return BatchItem(id=run["id"]) if replaced is None else BatchItem(id=run["id"], replaced=replaced)
        case exceptions.UniqueViolation():
            return AlreadyQueued(detail=_ALREADY_QUEUED)
        case Problem():
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


async def list_page(engine: AsyncEngine, *, limit: int, cursor: str | None, **filters: Any) -> RunPage:
    """A page of runs, newest first.

    Args:
        filters: owner, action, state, queue, tag, since, until, q.

    Raises:
        InvalidCursor: the cursor is not one of ours.
    """
    before = None if cursor is None else _decode(cursor)
    async with autocommit(engine).connect() as connection:
        page = await pages.get_page(connection, limit=limit, before=before, **filters)
    return RunPage(
        items=[read_run(row) for row in page.rows],
        next=None if page.last is None else _encode(page.last),
        searched_until=page.searched_until,
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
        raise AlreadyQueued(detail=_ALREADY_QUEUED) from error
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
    run = action.ask(request.params)
    run |= {
        "queue": request.queue or run["queue"],
        "priority": run["priority"] if request.priority is None else request.priority,
        "lock": request.lock or run["lock"],
        "queueing_lock": request.queueing_lock or run["queueing_lock"],
        "schedule_at": request.schedule_at and request.schedule_at.isoformat(),
        "delay": request.delay or None,
        "start_deadline": request.start_deadline and request.start_deadline.isoformat(),
        "tags": request.tags,
        "max_attempts": request.max_attempts or run["max_attempts"],
        "trace_context": origin.trace_context,
        "owner": origin.owner,
        "webhook": request.webhook,
        "replay_of": origin.replay_of,
        "actor": origin.actor,
        "route": origin.route,
    }
    return run if origin.key is None else run | origin.key.stamp(origin.sent or request)


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
