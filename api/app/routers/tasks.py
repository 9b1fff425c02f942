"""The door of the long-running API's document: `POST /tasks`, then poll or stream, in the words of a task queue."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from fastapi_rfc9457.server import problems
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.errors import Forbidden, InvalidEventId, QuotaExceeded, RunNotFound, Unauthorized
from app.routers.dependencies import ServicesDep
from app.routers.doors import params_at, say_more, vocabulary
from app.routers.events import LastEventId, LastEventIdInQuery, begin, history
from app.routers.headers import IDEMPOTENCY_KEY, PREFER
from app.routers.runs import SUBMISSION_PROBLEMS, accept
from app.routers.security import ONE_STREAM, Reads, Submits
from app.routers.streams import STREAM, EventStream
from app.routers.strict import StrictRoute
from app.runs import service
from app.runs.schemas import EventRead, Progress, RunCreate, RunRead, read_progress
from app.runs.state import RunState
from app.runs.watch import Told

router = APIRouter(prefix="/tasks", tags=["doors"], route_class=StrictRoute)

Status = Literal["PENDING", "PROGRESS", "SUCCESS", "FAILURE", "REVOKED"]

_STATUS: dict[RunState, Status] = vocabulary("PENDING", "PROGRESS", "SUCCESS", "FAILURE", "REVOKED")

TaskId = Annotated[str, Path(description="`task_id` of the submission.", max_length=64)]


class TaskCreate(BaseModel):
    """What to do, and with what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"type": "count_words", "payload": {"text": "to be or not to be"}}]},
    )

    type: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        description="An action; see `GET /actions`."
    )
    payload: dict[str, Any] = Field(default_factory=dict, description="The action's params.")


class TaskStatus(BaseModel):
    """How a task stands."""

    task_id: str = Field(examples=["run_20251222T101500Z_ab12cd34"])
    status: Status


class TaskUpdate(TaskStatus):
    """What a stream tells: what it has, and no more."""

    progress: Progress | None = None
    result: Any = None
    error: dict[str, Any] | None = Field(default=None, description="A problem object.")


class TaskRead(TaskUpdate):
    """A task."""

    type: str
    payload: dict[str, Any]
    attempt: int = Field(description="0 before the first.")
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


@router.post(
    "",
    status_code=202,
    operation_id="submitTask",
    openapi_extra={"parameters": [IDEMPOTENCY_KEY, PREFER]},
    responses={200: {"model": TaskStatus, "description": "It ended while you waited."}} | SUBMISSION_PROBLEMS,
)
async def submit_task(
    body: TaskCreate, services: ServicesDep, principal: Submits, request: Request, response: Response
) -> TaskStatus:
    """Submit a task; then poll `GET /tasks/{task_id}`, or follow `GET /tasks/{task_id}/stream`."""
    with params_at("/payload"):
        run = await accept(services, RunCreate(action=body.type, params=body.payload), principal, request, response)
    response.headers["Location"] = f"/tasks/{run.id}"
    say_more(run, response)
    return TaskStatus(task_id=run.id, status=_STATUS[run.state])


@router.get("/{task_id}", operation_id="getTask", responses=problems(Unauthorized, Forbidden, RunNotFound))
async def get_task(task_id: TaskId, services: ServicesDep, principal: Reads, response: Response) -> TaskRead:
    """How a task stands."""
    run = await service.get(services.engine, task_id, owner=principal.owner)
    say_more(run, response)
    return TaskRead(type=run.action, payload=run.params, **_same(run, TaskRead))


@router.get(
    "/{task_id}/stream",
    operation_id="streamTask",
    response_class=EventStream,
    dependencies=[ONE_STREAM],
    responses=STREAM
    | {204: {"description": "The task has ended, and the client has seen its last message."}}
    | problems(Unauthorized, Forbidden, RunNotFound, InvalidEventId, QuotaExceeded),
)
async def stream_task(
    task_id: TaskId,
    services: ServicesDep,
    principal: Reads,
    last_event_id: LastEventId = None,
    after: LastEventIdInQuery = None,
) -> EventStream:
    """Server-sent messages: a `TaskUpdate` whenever status or progress changes; the last one has the result or error.

    They have no event name, so that an `EventSource` hands them to `onmessage`.
    """
    run, seen = await begin(services, task_id, last_event_id or after, owner=principal.owner)
    return EventStream(history(services, run, seen, first=b"", encode=functools.partial(_messages, task_id=run.id)))


def _messages(told: list[Told], task_id: str) -> bytes:
    return b"".join([_message(one, task_id) for one in told]) or KEEPALIVE_COMMENT


def _message(told: Told, task_id: str) -> bytes:
    match told.what:
        case RunRead() as run:
            update = TaskUpdate(**_same(run, TaskUpdate))
        case EventRead() as event:
            update = _update(task_id, event)
    if update is None:
        return b""
    return format_sse_event(data_str=update.model_dump_json(exclude_unset=True), id=str(told.seq))


def _update(task_id: str, event: EventRead) -> TaskUpdate | None:
    match event.type:
        case "progress":
            return TaskUpdate(task_id=task_id, status="PROGRESS", progress=read_progress(event.data))
        case "state" if not (state := RunState(event.data["state"])).is_final:
            return TaskUpdate(task_id=task_id, status=_STATUS[state])
        case _:
            # Of its end, the run itself tells more.
            return None


def _same(run: RunRead, model: type[TaskUpdate]) -> dict[str, Any]:
    """What a task and its run have in common."""
    names = model.model_fields.keys() & RunRead.model_fields.keys()
    return {name: getattr(run, name) for name in names} | {"task_id": run.id, "status": _STATUS[run.state]}
