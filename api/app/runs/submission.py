"""How a request becomes a run: checked, completed by what its task says, stored with its job in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fastapi_rfc9457 import Problem
from procrastinate import exceptions
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import (
    AlreadyQueued,
    Fault,
    Forbidden,
    IdempotencyInFlight,
    IdempotencyKeyMissing,
    InvalidInput,
    Refused,
)
from app.observability import tracing
from app.observability.messaging import count_accepted
from app.runs import keys
from app.runs.actions import Action, Actions
from app.runs.idempotency import Idempotency
from app.runs.intake import Intake
from app.runs.problems import faults
from app.runs.queries import NewRun
from app.runs.schemas import BatchItem, RunCreate, RunRead, Unique, read_run
from app.runs.stored import IN_FLIGHT, Found, Stored, replayed

_UNKNOWN_WEBHOOK = Fault(
    pointer="/webhook", detail="There is no such endpoint. POST /webhooks makes one.", type="unknown_webhook"
)
ALREADY_QUEUED = "A run with this queueing lock is already waiting."


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
    is_admin: bool = False
    """Whether an administrator asks."""
    sent: BaseModel | None = None
    """What came with the key, if that was not the request itself."""

    @property
    def is_request(self) -> bool:
        """Whether a request has named the action; not a schedule, an adventure or another run."""
        return self.route is not None


HERE = Origin()
"""This program itself: its runs belong to nobody."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The run of an accepted request."""

    run: RunRead
    found: Found
    replaced: str | None
    """The run whose place it took."""


async def submit(intake: Intake, action: Action, request: RunCreate, origin: Origin = HERE) -> RunRead:
    """The run of `accept`."""
    return (await accept(intake, action, request, origin)).run


async def accept(intake: Intake, action: Action, request: RunCreate, origin: Origin = HERE) -> Accepted:
    """Accept a request: its run and its job exist, durably, when this returns.

    Both are inserted by one statement, with the task's own defaults, as `Task.defer_async` would insert the job.

    Raises:
        Forbidden: runs of the action are for administrators to ask for.
        IdempotencyKeyMissing: the action requires a key, and the request has none.
        InvalidInput: the params do not fit the action's input.
        AlreadyQueued: a run with the same queueing lock is waiting.
        NotUnique: a run with the same unique key is in the way.
        IdempotencyKeyReused: the key was sent with something else.
        IdempotencyInFlight: the first request with the key is being stored.
        TooBusy: too much is being submitted at this moment.
        QuotaExceeded: too many runs of this owner wait.
    """
    run = _prepared(action, request, origin)
    try:
        with tracing.sending(run["queue"]) as sent:
            run["trace_context"] = sent.carried(origin.trace_context)
            stored = await intake.store(run, request.unique)
            sent.name(stored.run["id"], stored.run["job_id"])
    except exceptions.UniqueViolation as error:
        raise AlreadyQueued(detail=ALREADY_QUEUED, run_id=await intake.queued_run(run)) from error
    if stored.found is Found.NEW:
        count_accepted(action.name)
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
    run = _prepared(action, request, origin)
    with tracing.sending(run["queue"]) as sent:
        run["trace_context"] = sent.carried(origin.trace_context)
        stored = await intake.store_within(connection, run)
        sent.name(stored.run["id"], stored.run["job_id"])
    count_accepted(action.name)
    return read_run(stored.run)


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
    intake: Intake, actions: Actions, requests: list[Any], origin: Origin, *, check: Callable[[str], None]
) -> list[BatchItem | Problem]:
    """Accept requests one by one, storing together those that can be.

    Args:
        requests: JSON; each should be a `RunCreate`.
        origin: with a key, each request has that key and its number.
        check: raises the problem of an action whose runs may not be submitted.

    Returns:
        For each request the id of its run, or the problem that kept it out.

    Raises:
        ConnectorException: the database did not answer; some runs may have been stored.
    """
    prepared = [_prepared_or_problem(actions, n, request, origin, check) for n, request in enumerate(requests)]
    accepted = [run for run in prepared if isinstance(run, tuple)]
    queues = {run["queue"] for run, _ in accepted}
    with tracing.sending(queues.pop() if len(queues) == 1 else None, len(accepted)) as sent:
        carried = sent.carried(origin.trace_context)
        for run, _ in accepted:
            run["trace_context"] = carried
        stored = iter(await intake.store_all(accepted))
    return [_outcome(run[0], next(stored)) if isinstance(run, tuple) else run for run in prepared]


def _prepared_or_problem(
    actions: Actions, number: int, request: Any, origin: Origin, check: Callable[[str], None]
) -> tuple[NewRun, Unique | None] | Problem:
    try:
        checked = RunCreate.model_validate(request)
        # Before it is looked up: who may not submit it is not told whether it is there.
        check(checked.action)
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


def _outcome(asked: NewRun, stored: Stored | BaseException) -> BatchItem | Problem:
    match stored:
        case Stored(run=run, found=found, replaced=replaced):
            if found is Found.NEW:
                count_accepted(asked["action"])
            return BatchItem(id=run["id"]) if replaced is None else BatchItem(id=run["id"], replaced=replaced)
        case exceptions.UniqueViolation():
            return AlreadyQueued(detail=ALREADY_QUEUED)
        case Problem():
            return stored
        case _:
            raise stored


def _prepared(action: Action, request: RunCreate, origin: Origin) -> NewRun:
    """The request, checked, with what the task says where it is silent."""
    if action.scope == "admin" and origin.is_request and not origin.is_admin:
        raise Forbidden(detail=f"Runs of {action.name} are submitted with the scope admin.")
    if action.idempotency == "required" and origin.is_request and origin.key is None:
        raise IdempotencyKeyMissing(
            detail=f"Send an Idempotency-Key: {action.name} requires it, so that a request sent twice makes one run."
        )
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
        "owner": origin.owner,
        "webhook": request.webhook,
        "replay_of": origin.replay_of,
        "actor": origin.actor,
        "route": origin.route,
    }
    return run if origin.key is None else run | origin.key.stamp(origin.sent or request)
