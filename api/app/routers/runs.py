"""The canonical door: runs."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Set
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi_rfc9457.server import problems
from pydantic import Field

from app.errors import (
    AlreadyQueued,
    BodyTooLarge,
    DatabaseUnavailable,
    Forbidden,
    InvalidCursor,
    InvalidEventId,
    InvalidInput,
    QuotaExceeded,
    RunFinal,
    RunNotFailed,
    RunNotFound,
    TooBusy,
    Unauthorized,
    UnknownAction,
    UnreadableBody,
)
from app.observability.tracing import carried_trace
from app.routers.audited import will_submit
from app.routers.dependencies import Services, ServicesDep
from app.routers.problems import NothingMore
from app.routers.security import ONE_STREAM, Principal, Reads, Writes
from app.routers.strict import StrictRoute
from app.runs import service
from app.runs.events import follow, patiently
from app.runs.problems import document
from app.runs.schemas import NO_NUL, BatchAccepted, BatchItem, EventRead, RunBatch, RunCreate, RunPage, RunRead
from app.runs.service import Origin
from app.runs.state import RunState
from app.webhooks.service import nameable

router = APIRouter(prefix="/runs", tags=["runs"], route_class=StrictRoute)

RunId = Annotated[str, Path(description="The id that the submission returned.", max_length=64)]
RECONNECT_MILLISECONDS = 1000


class RunReadWithTraceback(RunRead):
    """A run, and where its last failed attempt failed."""

    traceback: str | None = Field(default=None, description="Only with `include=traceback`.")


@router.post(
    "",
    status_code=202,
    response_model=RunRead,
    operation_id="submitRun",
    responses=problems(
        Unauthorized,
        Forbidden,
        UnreadableBody,
        BodyTooLarge,
        UnknownAction,
        InvalidInput,
        AlreadyQueued,
        QuotaExceeded,
        DatabaseUnavailable,
        TooBusy,
    ),
)
async def submit_run(body: RunCreate, principal: Writes, request: Request, response: Response) -> Response:
    """Submit an action. The run is stored when the answer arrives; a worker performs it."""
    # What is asked for most is spared a dependency, and a second check of the answer.
    run = await accept(request.app.state.services, body, principal, request, response)
    return Response(run.model_dump_json(), 202, response.headers, "application/json")


@router.post(
    "/batch",
    status_code=202,
    operation_id="submitRuns",
    response_model_exclude_unset=True,
    responses=problems(
        Unauthorized, Forbidden, UnreadableBody, BodyTooLarge, InvalidInput, DatabaseUnavailable, TooBusy
    ),
)
async def submit_runs(body: RunBatch, services: ServicesDep, principal: Writes, request: Request) -> BatchAccepted:
    """Submit up to 1,000 runs. Each is accepted or refused by itself; those accepted are stored when this answers."""
    named = {run["webhook"] for run in body.runs if isinstance(run, dict) and isinstance(run.get("webhook"), str)}
    source = await with_webhooks(origin(principal, request), services, named)
    outcomes = await service.submit_all(services.intake, services.actions, body.runs, source)
    return BatchAccepted(
        items=[BatchItem(id=each) if isinstance(each, str) else BatchItem(error=document(each)) for each in outcomes]
    )


@router.get("", operation_id="listRuns", responses=problems(Unauthorized, Forbidden, InvalidCursor, InvalidInput))
async def list_runs(
    services: ServicesDep,
    principal: Reads,
    action: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
    state: RunState | None = None,
    queue: Annotated[str | None, Query(max_length=40, pattern=NO_NUL)] = None,
    tag: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> RunPage:
    """Runs, newest first."""
    return await service.list_page(
        services.engine,
        limit=limit,
        cursor=cursor,
        owner=principal.owner,
        action=action,
        state=state,
        queue=queue,
        tag=tag,
    )


@router.get(
    "/{run_id}",
    operation_id="getRun",
    response_model=RunReadWithTraceback,
    response_model_exclude_unset=True,
    responses=problems(Unauthorized, Forbidden, RunNotFound),
)
async def get_run(
    run_id: RunId,
    services: ServicesDep,
    principal: Reads,
    response: Response,
    include: Literal["traceback"] | None = None,
) -> Any:
    """One run as it is now. While it has not ended, `Retry-After` says when to look again."""
    run = await service.get(services.engine, run_id, owner=principal.owner)
    when_to_look_again(run, response)
    if include is None:
        return run.model_dump()
    return run.model_dump() | {"traceback": await service.get_traceback(services.engine, run_id, owner=principal.owner)}


@router.post(
    "/{run_id}/cancel",
    operation_id="cancelRun",
    responses={202: {"model": RunRead, "description": "Its worker has been asked to stop it."}}
    | problems(Unauthorized, Forbidden, RunNotFound, RunFinal),
)
async def cancel_run(run_id: RunId, services: ServicesDep, principal: Writes, response: Response) -> RunRead:
    """Cancel a run: at once if it waits, else as soon as its worker has heard."""
    run = await service.cancel(services.engine, services.manager, run_id, owner=principal.owner)
    response.status_code = 200 if run.state.is_final else 202
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


async def events_after(
    run_id: RunId,
    services: ServicesDep,
    principal: Reads,
    last_event_id: Annotated[str | None, Header(description="Resume after this event.")] = None,
) -> int:
    """Where to resume. Looked up before the stream begins: inside it, a 404 would come too late.

    Raises:
        RunNotFound: there is no such run.
        InvalidEventId: the id is not one.
        NothingMore: the run has ended, and the client has seen its last event.
    """
    after = _event_id(last_event_id)
    look = functools.partial(service.has_ended_at, services.engine, run_id, after, owner=principal.owner)
    if await patiently(look, services.stopping):
        raise NothingMore
    return after


@router.get(
    "/{run_id}/events",
    operation_id="followRun",
    response_class=EventSourceResponse,
    dependencies=[ONE_STREAM],
    responses={204: {"description": "The run has ended and `Last-Event-ID` is its last event."}}
    | problems(Unauthorized, Forbidden, RunNotFound, InvalidEventId, QuotaExceeded),
)
async def follow_run(
    run_id: RunId, after: Annotated[int, Depends(events_after)], request: Request
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: the run's history after `Last-Event-ID`, then live.

    Events are named `state`, `progress`, `log`, `step`; the last one is `end`, with the run as data.
    """
    services: Services = request.app.state.services
    yield ServerSentEvent(retry=RECONNECT_MILLISECONDS, comment="runledger")
    last = after
    async for item in follow(services.engine, services.bell, run_id, after=after, stopping=services.stopping):
        match item:
            case EventRead(seq=seq):
                last = seq
                yield ServerSentEvent(
                    id=str(seq), event=item.type, data=item.model_dump(mode="json", include={"at"}) | item.data
                )
            case RunRead():
                yield ServerSentEvent(id=str(last), event="end", data=item)


async def accept(
    services: Services, body: RunCreate, principal: Principal, request: Request, response: Response
) -> RunRead:
    """Submit for any door: 202, where the run is, and when to look."""
    action = services.actions.named(body.action)
    source = origin(principal, request)
    if body.webhook is not None:
        source = await with_webhooks(source, services, {body.webhook})
    run = await service.submit(services.intake, action, body, source)
    response.headers["Location"] = run.links.self
    when_to_look_again(run, response)
    return run


def origin(principal: Principal, request: Request) -> Origin:
    """Where a submission comes from."""
    return Origin(principal.owner, carried_trace(request.headers), principal.actor, will_submit(request))


async def with_webhooks(source: Origin, services: Services, named: Set[str]) -> Origin:
    """The same, with those of the named webhook endpoints that are the caller's."""
    return replace(source, webhooks=await nameable(services.engine, named, owner=source.owner))


def when_to_look_again(run: RunRead, response: Response) -> None:
    """Set `Retry-After`, in seconds, unless the run has ended: patient clients poll less as a run gets older."""
    if run.state.is_final:
        return
    now = datetime.now(UTC)
    if run.state is RunState.SCHEDULED and run.schedule_at is not None:
        seconds = min(max(int((run.schedule_at - now).total_seconds()), 1), 60)
    else:
        age = (now - run.created_at).total_seconds()
        seconds = next((pause for until, pause in ((10, 1), (60, 2), (600, 5)) if age < until), 15)
    response.headers["Retry-After"] = str(seconds)


def _event_id(sent: str | None) -> int:
    if sent is None or sent == "":
        return 0
    if not sent.isascii() or not sent.isdecimal() or len(sent) > 9:
        raise InvalidEventId(detail="Last-Event-ID must be the id of an event of this run.")
    return int(sent)
