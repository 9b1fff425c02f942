"""The canonical door: runs are submitted, listed and read."""

from __future__ import annotations

import functools
from collections.abc import Set
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi_rfc9457 import Problem
from fastapi_rfc9457.server import problems
from pydantic import Field

from app.access.principal import Scope
from app.errors import (
    AlreadyQueued,
    BodyTooLarge,
    DatabaseUnavailable,
    Forbidden,
    IdempotencyInFlight,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InvalidCursor,
    InvalidIdempotencyKey,
    InvalidInput,
    NotUnique,
    QuotaExceeded,
    RunNotFound,
    TooBusy,
    Unauthorized,
    UnknownAction,
    UnreadableBody,
)
from app.observability.tracing import carried_trace
from app.routers.audited import will_submit, write_down_refusals
from app.routers.dependencies import ServicesDep
from app.routers.headers import (
    IDEMPOTENCY_KEY,
    PREFER,
    etag,
    header,
    idempotency,
    link_pages,
    matches,
    seconds_to_wait,
    when_to_look_again,
)
from app.routers.security import Principal, Reads, Submits, check_may_submit
from app.routers.services import Services
from app.routers.strict import StrictRoute
from app.runs import service, submission
from app.runs.events import wait_for
from app.runs.problems import document
from app.runs.schemas import BatchAccepted, BatchItem, RunBatch, RunCreate, RunPage, RunQuery, RunRead
from app.runs.stored import Found
from app.runs.submission import Accepted, Origin
from app.webhooks.service import nameable

router = APIRouter(prefix="/runs", tags=["runs"], route_class=StrictRoute)

RunId = Annotated[str, Path(description="The id that the submission returned.", max_length=64)]

SUBMISSION_PROBLEMS = problems(
    Unauthorized,
    Forbidden,
    UnreadableBody,
    InvalidIdempotencyKey,
    IdempotencyKeyMissing,
    BodyTooLarge,
    UnknownAction,
    InvalidInput,
    IdempotencyKeyReused,
    AlreadyQueued,
    NotUnique,
    IdempotencyInFlight,
    QuotaExceeded,
    DatabaseUnavailable,
    TooBusy,
)


class RunReadWithTraceback(RunRead):
    """A run, and where its last failed attempt failed."""

    traceback: str | None = Field(default=None, description="Only with `include=traceback`.")


@router.post(
    "",
    status_code=202,
    response_model=RunRead,
    operation_id="submitRun",
    openapi_extra={"parameters": [IDEMPOTENCY_KEY, PREFER]},
    responses={200: {"model": RunRead, "description": "It ended while you waited, or a unique run was there."}}
    | SUBMISSION_PROBLEMS,
)
async def submit_run(body: RunCreate, principal: Submits, request: Request, response: Response) -> Response:
    """Submit an action. The run is stored when the answer arrives; a worker performs it."""
    # What is asked for most is spared a dependency, and a second check of the answer.
    run = await accept(request.app.state.services, body, principal, request, response)
    return Response(run.model_dump_json(), response.status_code or 202, response.headers, "application/json")


@router.post(
    "/batch",
    status_code=202,
    operation_id="submitRuns",
    response_model=BatchAccepted,
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
    responses=problems(
        Unauthorized,
        Forbidden,
        UnreadableBody,
        InvalidIdempotencyKey,
        BodyTooLarge,
        InvalidInput,
        DatabaseUnavailable,
        TooBusy,
    ),
)
async def submit_runs(body: RunBatch, services: ServicesDep, principal: Submits, request: Request) -> Response:
    """Submit up to 1,000 runs. Each is accepted or refused by itself; those accepted are stored when this answers.

    An `Idempotency-Key` holds for each of them at its place: sent again, those that were stored are the same runs.
    Without it, those whose action requires a key are refused; so are those whose action you may not submit.
    """
    named = {run["webhook"] for run in body.runs if isinstance(run, dict) and isinstance(run.get("webhook"), str)}
    source = await with_webhooks(origin(principal, request), services, named)
    check = functools.partial(check_may_submit, principal)
    outcomes = await submission.submit_all(services.intake, services.actions, body.runs, source, check=check)
    await write_down_refusals(request, [each.status for each in outcomes if isinstance(each, Problem)])
    items = [each if isinstance(each, BatchItem) else BatchItem(error=document(each)) for each in outcomes]
    # A thousand of them are not checked a second time.
    return Response(BatchAccepted(items=items).model_dump_json(exclude_unset=True), 202, media_type="application/json")


@router.get("", operation_id="listRuns", responses=problems(Unauthorized, Forbidden, InvalidCursor, InvalidInput))
async def list_runs(
    services: ServicesDep,
    principal: Reads,
    request: Request,
    response: Response,
    chosen: Annotated[RunQuery, Query()],
) -> RunPage:
    """Runs, newest first. `Link: rel="next"` leads to the next page, `rel="prev"` back to the one before.

    A page looks at no more than the nearest 10,000 runs that its best index finds: it may hold fewer than `limit` and
    yet have a `next` (on the way back, a `prev`); `searched_until` then says how far it has looked.
    """
    page = await service.list_page(services.engine, owner=principal.owner, **chosen.model_dump())
    link_pages(page, request, response)
    return page


@router.get(
    "/{run_id}",
    operation_id="getRun",
    response_model=RunReadWithTraceback,
    response_model_exclude_unset=True,
    openapi_extra={"parameters": [PREFER, header("If-None-Match", "The `ETag` that you have.", type="string")]},
    responses={304: {"description": "It is as the `ETag` that you sent says."}}
    | problems(Unauthorized, Forbidden, RunNotFound),
)
async def get_run(
    run_id: RunId,
    services: ServicesDep,
    principal: Reads,
    request: Request,
    response: Response,
    include: Literal["traceback"] | None = None,
) -> Any:
    """One run as it is now. While it has not ended, `Retry-After` says when to look again.

    With `Prefer: wait=N` the answer comes when the run is no longer as `If-None-Match` says, or without that when it
    has ended; after N seconds, 30 at most, it comes in any case.
    """
    of = f"-{include}" if include else ""
    run = await service.get(services.engine, run_id, owner=principal.owner)
    if (seconds := seconds_to_wait(request)) is not None:
        has_version = "if-none-match" in request.headers
        if not has_version or matches(request, etag(run, of=of)):
            await wait_for(services.lookout, run, seconds=seconds, end=not has_version)
            run = await service.get(services.engine, run_id, owner=principal.owner)
        response.headers["Preference-Applied"] = f"wait={seconds}"
    response.headers["ETag"] = etag(run, of=of)
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["Vary"] = "Prefer"
    when_to_look_again(run, response)
    if matches(request, etag(run, of=of)):
        return Response(status_code=304, headers=response.headers)
    if include is None:
        return run.model_dump()
    return run.model_dump() | {"traceback": await service.get_traceback(services.engine, run_id, owner=principal.owner)}


async def accept(
    services: Services,
    body: RunCreate,
    principal: Principal,
    request: Request,
    response: Response,
    again: Origin | None = None,
) -> RunRead:
    """The run of `submit`."""
    return (await submit(services, body, principal, request, response, again)).run


async def submit(
    services: Services,
    body: RunCreate,
    principal: Principal,
    request: Request,
    response: Response,
    again: Origin | None = None,
) -> Accepted:
    """Submit for any door, and wait for the end if that is preferred: where the run is, and when to look.

    The status of the answer is 202, or 200 if it has ended or was there.

    Args:
        again: where a run came from that is submitted again.
    """
    check_may_submit(principal, body.action)
    action = services.actions.named(body.action)
    source = origin(principal, request)
    if again is not None:
        source = replace(source, owner=again.owner, webhooks=again.webhooks, replay_of=again.replay_of)
    elif body.webhook is not None:
        source = await with_webhooks(source, services, {body.webhook})
    accepted = await submission.accept(services.intake, action, body, source)
    run = await _preferred(services, accepted.run, request, response)
    response.status_code = 200 if accepted.found is Found.EXISTING or _has_waited(response) else 202
    response.headers["Location"] = run.links.self
    if accepted.found is Found.REPLAYED:
        response.headers["Idempotent-Replayed"] = "true"
    if accepted.replaced is not None:
        response.headers["Link"] = f'</runs/{accepted.replaced}>; rel="predecessor-version"'
    when_to_look_again(run, response)
    return replace(accepted, run=run)


def origin(principal: Principal, request: Request) -> Origin:
    """Where a submission comes from, and the key it comes with.

    Raises:
        InvalidIdempotencyKey: the key cannot be one.
    """
    return Origin(
        principal.owner,
        carried_trace(request.headers),
        idempotency(request, principal),
        actor=principal.actor,
        is_admin=principal.may(Scope.ADMIN),
        route=will_submit(request),
    )


async def with_webhooks(source: Origin, services: Services, named: Set[str]) -> Origin:
    """The same, with those of the named webhook endpoints that are the caller's."""
    return replace(source, webhooks=await nameable(services.engine, named, owner=source.owner))


async def _preferred(services: Services, run: RunRead, request: Request, response: Response) -> RunRead:
    """The run, at its end if the client prefers to wait and it comes in time."""
    seconds = seconds_to_wait(request)
    if seconds is None:
        return run
    await wait_for(services.lookout, run, seconds=seconds, end=True)
    run = await service.get(services.engine, run.id)
    if run.state.is_final:
        response.headers["Preference-Applied"] = f"wait={seconds}"
    return run


def _has_waited(response: Response) -> bool:
    return "Preference-Applied" in response.headers
