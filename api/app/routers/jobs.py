"""The door of two documents that both call it `/jobs`: a body with a `payload` is the one's, any other the other's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi_rfc9457.server import problems
from pydantic import WrapValidator

from app.errors import Forbidden, InvalidCursor, InvalidInput, RunNotFound, Unauthorized
from app.routers import payload_jobs, sleep_jobs
from app.routers.dependencies import ServicesDep
from app.routers.doors import params_at, say_more
from app.routers.headers import IDEMPOTENCY_KEY, PREFER, link_pages
from app.routers.payload_jobs import PayloadJobAccepted, PayloadJobCreate, PayloadJobRead
from app.routers.runs import SUBMISSION_PROBLEMS, accept, submit
from app.routers.security import Principal, Reads, Submits
from app.routers.services import Services
from app.routers.sleep_jobs import SleepJobCreate, SleepJobRead
from app.routers.strict import StrictRoute
from app.runs import service
from app.runs.schemas import RunRead

router = APIRouter(prefix="/jobs", tags=["doors"], route_class=StrictRoute)


def _told_apart(body: Any, _: Callable[[Any], Any]) -> PayloadJobCreate | SleepJobCreate:
    # Not a tagged union, whose tag would be part of where a fault is said to be.
    kind = PayloadJobCreate if isinstance(body, dict) and "payload" in body else SleepJobCreate
    return kind.model_validate(body)


JobCreate = Annotated[
    PayloadJobCreate | SleepJobCreate,
    WrapValidator(_told_apart),
    Body(
        openapi_examples={
            "payload": {
                "summary": "A job that names its task",
                "value": {"payload": {"task": "hello_world", "data": "test message"}},
            },
            "replace": {
                "summary": "… instead of the one that waits",
                "value": {"payload": {"task": "hello_world", "data": "test message"}, "on_duplicate": "replace"},
            },
            "sleep": {"summary": "A job that sleeps for three seconds", "value": {}},
            "message": {
                "summary": "… for two, and echoes a message",
                "value": {"sleep_seconds": 2, "message": "hello world"},
            },
        }
    ),
]
JobId = Annotated[str, Path(description="`job_id` or `id` of the submission.", max_length=64)]


@router.post(
    "",
    status_code=202,
    operation_id="submitJob",
    response_model_exclude_unset=True,
    openapi_extra={"parameters": [IDEMPOTENCY_KEY, PREFER]},
    responses={200: {"description": "It ended while you waited, or a job of the same payload waits."}}
    | SUBMISSION_PROBLEMS,
)
async def submit_job(
    body: JobCreate, services: ServicesDep, principal: Submits, request: Request, response: Response
) -> PayloadJobAccepted | SleepJobRead:
    """Submit a job: with a `payload`, whose `task` is an action, or one that sleeps.

    A payload that is the same as one that waits is a duplicate: the answer is the job that waits, with
    `"duplicate": true`, unless `on_duplicate` says to `replace` it or to `reject` this one.
    """
    match body:
        case PayloadJobCreate():
            return await _submit_payload(body, services, principal, request, response)
        case SleepJobCreate():
            with params_at(""):
                run = await accept(services, body.request(), principal, request, response)
            _say_where(run, response)
            return sleep_jobs.accepted(run)


@router.get("", operation_id="listSleepJobs", responses=problems(Unauthorized, Forbidden, InvalidCursor, InvalidInput))
async def list_jobs(
    services: ServicesDep,
    principal: Reads,
    request: Request,
    response: Response,
    limit: Annotated[int, Query(ge=1, le=200)] = 200,
    cursor: Annotated[str | None, Query(max_length=64, description="From the `Link` of another page.")] = None,
) -> list[SleepJobRead]:
    """The jobs that sleep, newest first; `Link` has the next page and the one before.

    Those with a payload are listed by `GET /runs`.
    """
    page = await service.list_page(
        services.engine,
        limit=limit,
        cursor=cursor,
        owner=principal.owner,
        action=sleep_jobs.ACTION,
        tag=sleep_jobs.TAG,
    )
    link_pages(page, request, response)
    return [sleep_jobs.read(run) for run in page.items]


@router.get(
    "/{job_id}",
    operation_id="getJob",
    response_model_exclude_unset=True,
    responses=problems(Unauthorized, Forbidden, RunNotFound),
)
async def get_job(
    job_id: JobId, services: ServicesDep, principal: Reads, response: Response
) -> PayloadJobRead | SleepJobRead:
    """How a job stands, in the words in which it was submitted. A run of another door is told like a payload."""
    run = await service.get(services.engine, job_id, owner=principal.owner)
    say_more(run, response)
    return sleep_jobs.read(run) if sleep_jobs.is_sleep_job(run) else payload_jobs.read(run)


async def _submit_payload(
    job: PayloadJobCreate, services: Services, principal: Principal, request: Request, response: Response
) -> PayloadJobAccepted:
    with payload_jobs.task_at_payload(), params_at("/payload"):
        accepted = await submit(services, job.request(), principal, request, response)
    _say_where(accepted.run, response)
    return payload_jobs.told(accepted)


def _say_where(run: RunRead, response: Response) -> None:
    response.headers["Location"] = f"/jobs/{run.id}"
    say_more(run, response)
