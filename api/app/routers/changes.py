"""What is done to runs that are there: cancel, retry, replay, and each of these to many."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Request, Response
from fastapi_rfc9457.server import problems
from pydantic import JsonValue

from app.errors import (
    AlreadyQueued,
    BodyTooLarge,
    Forbidden,
    InvalidInput,
    RunFinal,
    RunNotFailed,
    RunNotFound,
    SignalSent,
    Unauthorized,
    UnreadableBody,
)
from app.routers.dependencies import ServicesDep
from app.routers.headers import IDEMPOTENCY_KEY, PREFER, idempotency, when_to_look_again
from app.routers.runs import SUBMISSION_PROBLEMS, RunId, accept
from app.routers.security import Repeats, Writes
from app.routers.strict import StrictRoute, with_problems
from app.runs import bulk, service, signals
from app.runs.schemas import BulkRequest, Matched, Name, RunCreate, RunRead, RunReplay
from app.runs.signals import SignalRead

router = APIRouter(prefix="/runs", tags=["runs"], route_class=StrictRoute)


@router.post(
    "/{run_id}/cancel",
    operation_id="cancelRun",
    responses={202: {"model": RunRead, "description": "Its worker has been asked to stop it."}}
    | problems(Unauthorized, Forbidden, RunNotFound, RunFinal),
)
async def cancel_run(run_id: RunId, services: ServicesDep, principal: Writes, response: Response) -> RunRead:
    """Cancel a run: at once if it waits, else as soon as its worker has heard. Asked again, it answers the same."""
    run = await service.cancel(services.engine, services.manager, run_id, owner=principal.owner)
    response.status_code = 200 if run.state.is_final else 202
    when_to_look_again(run, response)
    return run


@router.post(
    "/{run_id}/retry",
    status_code=202,
    operation_id="retryRun",
    responses=problems(Unauthorized, Forbidden, RunNotFound, RunNotFailed, AlreadyQueued),
)
async def retry_run(run_id: RunId, services: ServicesDep, principal: Writes, response: Response) -> RunRead:
    """Give a run that failed or was cancelled another attempt. Its finished steps are kept."""
    run = await service.retry(services.engine, run_id, owner=principal.owner)
    when_to_look_again(run, response)
    return run


@router.post(
    "/{run_id}/replay",
    status_code=202,
    operation_id="replayRun",
    openapi_extra={"parameters": [IDEMPOTENCY_KEY, PREFER]},
    responses=with_problems(
        {200: {"model": RunRead, "description": "It ended while you waited."}} | SUBMISSION_PROBLEMS, RunNotFound
    ),
)
async def replay_run(
    run_id: RunId,
    services: ServicesDep,
    principal: Repeats,
    request: Request,
    response: Response,
    edited: Annotated[RunReplay | None, Body()] = None,
) -> RunRead:
    """Submit a run again, as a new run: with the same params, or edited ones. Its `replay_of` names the old one."""
    again = await service.again(services.engine, run_id, edited or RunReplay(), owner=principal.owner)
    return await accept(services, again.request, principal, request, response, again.origin)


@router.post(
    "/{run_id}/signals/{name}",
    status_code=202,
    operation_id="signalRun",
    responses=problems(
        Unauthorized, Forbidden, UnreadableBody, BodyTooLarge, InvalidInput, RunNotFound, RunFinal, SignalSent
    ),
)
async def signal_run(
    run_id: RunId,
    name: Annotated[Name, Path(description="What the run waits for.", examples=["approved"])],
    services: ServicesDep,
    principal: Writes,
    data: Annotated[
        JsonValue,
        Body(openapi_examples={"typical": {"value": {"by": "ada"}}}, description="What to tell it: any JSON."),
    ] = None,
) -> SignalRead:
    """Tell a run something that it waits for, or will wait for: it is kept until then.

    The first signal of a name counts. The same one may be sent again; one of that name with other data is refused.
    """
    return await signals.send(services.engine, run_id, name, data, owner=principal.owner)


@router.post(
    "/bulk",
    status_code=202,
    response_model=RunRead,
    operation_id="changeRuns",
    openapi_extra={"parameters": [IDEMPOTENCY_KEY, PREFER]},
    responses={200: {"model": Matched | RunRead, "description": "How many fit; or it ended while you waited."}}
    | SUBMISSION_PROBLEMS,
)
async def change_runs(
    body: BulkRequest, services: ServicesDep, principal: Writes, request: Request, response: Response
) -> Any:
    """Cancel, retry or replay many runs: those of some ids, or those that fit a filter.

    That is a run itself, of the action `bulk_runs`: watch its progress, or cancel it. It sees the runs that you see,
    and that are older than itself. With `dry_run` the answer is how many would be looked at, and nothing is done.
    """
    idempotency(request, principal)  # A dry run stores none, yet what cannot be a key is refused here as anywhere.
    if body.dry_run:
        matched = await bulk.count(services.engine, body, owner=principal.owner)
        return Response(Matched(matched=matched).model_dump_json(), media_type="application/json")
    params = body.model_dump(mode="json", exclude_unset=True, exclude={"dry_run"})
    return await accept(services, RunCreate(action=bulk.NAME, params=params), principal, request, response)
