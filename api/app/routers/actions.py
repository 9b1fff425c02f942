"""The catalogue of actions, and the door of the roadmap document: `POST /actions/run`, then poll."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi_rfc9457.server import problems
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.engine.limits import Limit
from app.errors import Forbidden, RunNotFound, Unauthorized, UnknownAction
from app.routers.contract import REFERENCE, example
from app.routers.dependencies import ServicesDep
from app.routers.doors import say_more, vocabulary
from app.routers.headers import IDEMPOTENCY_KEY, PREFER
from app.routers.runs import SUBMISSION_PROBLEMS, RunId, accept
from app.routers.security import Reads, Submits
from app.routers.strict import StrictRoute
from app.runs import service
from app.runs.actions import Action, KeyPolicy, SubmitScope
from app.runs.schemas import Progress, RunCreate, RunRead
from app.runs.state import RunState

router = APIRouter(prefix="/actions", tags=["actions"], route_class=StrictRoute)

Status = Literal["queued", "running", "success", "failed", "cancelled"]

_STATUS: dict[RunState, Status] = vocabulary("queued", "running", "success", "failed", "cancelled")


class RateRead(BaseModel):
    """`count` starts every `seconds`, and up to `burst` at once after a pause."""

    count: int
    seconds: float
    burst: int


class LimitRead(BaseModel):
    """What the runs of an action may take together."""

    concurrency: int | None = Field(description="How many run at once.")
    rate: RateRead | None
    by: str | None = Field(description="The parameter of which each value is limited by itself.")


class ActionRead(BaseModel):
    """An action: its name, what it takes and what it returns (JSON Schema 2020-12), and what its runs are given."""

    name: str
    description: str
    queue: str
    priority: int
    lock: str | None
    queueing_lock: str | None
    max_attempts: int
    timeout: float | None = Field(description="Seconds that an attempt may take; null: as long as it takes.")
    limit: LimitRead | None
    idempotency: KeyPolicy = Field(description="Whether a request for a run must come with an `Idempotency-Key`.")
    scope: SubmitScope = Field(description="What a request for a run must be allowed.")
    example: dict[str, Any] = Field(description="Params that fit, to begin with.")
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class ActionRunCreate(BaseModel):
    """What to do, and with what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"action": "count_words", "params": {"text": "to be or not to be"}}]},
    )

    action: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    params: dict[str, Any] = Field(default_factory=dict)


class ActionRunAccepted(BaseModel):
    """The id to poll with."""

    run_id: str = Field(examples=["run_20251222T101500Z_ab12cd34"])
    status: Status


class ActionRunRead(ActionRunAccepted):
    """How it stands: queued, running, success, failed or cancelled."""

    action: str
    progress: Progress | None
    result: Any
    error: dict[str, Any] | None
    attempt: int
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


@router.get("", operation_id="listActions", responses=problems(Unauthorized, Forbidden))
async def list_actions(services: ServicesDep, _: Reads) -> list[ActionRead]:
    """Every action that can be submitted."""
    return [_read(action) for _, action in sorted(services.actions.items())]


@router.get("/{name}", operation_id="getAction", responses=problems(Unauthorized, Forbidden, UnknownAction))
async def get_action(name: str, services: ServicesDep, _: Reads) -> ActionRead:
    """One action."""
    return _read(services.actions.named(name))


@router.post(
    "/run",
    status_code=202,
    operation_id="runAction",
    openapi_extra={"parameters": [IDEMPOTENCY_KEY, PREFER]},
    responses={200: {"model": ActionRunAccepted, "description": "It ended while you waited."}} | SUBMISSION_PROBLEMS,
)
async def run_action(
    body: ActionRunCreate, services: ServicesDep, principal: Submits, request: Request, response: Response
) -> ActionRunAccepted:
    """Submit an action; poll `GET /actions/run/{run_id}` until its status is success, failed or cancelled."""
    run = await accept(services, RunCreate(action=body.action, params=body.params), principal, request, response)
    response.headers["Location"] = f"/actions/run/{run.id}"
    say_more(run, response)
    return ActionRunAccepted(run_id=run.id, status=_STATUS[run.state])


@router.get("/run/{run_id}", operation_id="getActionRun", responses=problems(Unauthorized, Forbidden, RunNotFound))
async def get_action_run(run_id: RunId, services: ServicesDep, principal: Reads, response: Response) -> ActionRunRead:
    """How a run stands, in the words of this door."""
    run = await service.get(services.engine, run_id, owner=principal.owner)
    say_more(run, response)
    return _translate(run)


def _translate(run: RunRead) -> ActionRunRead:
    same = {name: getattr(run, name) for name in ActionRunRead.model_fields if name not in ("run_id", "status")}
    return ActionRunRead(run_id=run.id, status=_STATUS[run.state], **same)


def _limit(limit: Limit) -> LimitRead:
    rate = limit.rate and RateRead(count=limit.rate.count, seconds=limit.rate.seconds, burst=limit.burst or 1)
    return LimitRead(concurrency=limit.concurrency, rate=rate, by=limit.by)


def example_of(model: type[BaseModel]) -> dict[str, Any]:
    """What must be given, by the examples of its fields, or else by their types."""
    schema = model.model_json_schema(ref_template=f"{REFERENCE}{{model}}")
    return example(schema, schema.get("$defs", {}))


def _read(action: Action) -> ActionRead:
    return ActionRead(
        name=action.name,
        description=action.description,
        queue=action.task.queue,
        priority=action.task.priority,
        lock=action.task.lock,
        queueing_lock=action.task.queueing_lock,
        timeout=action.timeout,
        limit=action.limit and _limit(action.limit),
        idempotency=action.idempotency,
        scope=action.scope,
        max_attempts=action.retry.max_attempts,
        example=example_of(action.input),
        input_schema=action.input.model_json_schema(),
        output_schema=action.output.json_schema(mode="serialization"),
    )
