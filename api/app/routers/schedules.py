"""Schedules: what is performed by the clock."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi_rfc9457.server import problems

from app.control.schedules import Schedules
from app.control.schemas import ScheduleCreate, ScheduleList, ScheduleRead
from app.errors import (
    AlreadyQueued,
    BodyTooLarge,
    Forbidden,
    InvalidInput,
    ScheduleDeclared,
    ScheduleExists,
    ScheduleNotFound,
    TooBusy,
    Unauthorized,
    UnknownAction,
    UnreadableBody,
)
from app.observability.tracing import carried_trace
from app.routers.dependencies import ServicesDep
from app.routers.runs import when_to_look_again
from app.routers.security import Administers
from app.routers.strict import StrictRoute
from app.runs.schemas import NO_NUL, RunRead

router = APIRouter(prefix="/schedules", tags=["schedules"], route_class=StrictRoute)

ScheduleName = Annotated[str, Path(min_length=1, max_length=130, pattern=NO_NUL)]


async def schedules(services: ServicesDep) -> Schedules:
    return Schedules(services.engine, services.actions, services.schedules)


SchedulesDep = Annotated[Schedules, Depends(schedules)]


@router.get("", operation_id="listSchedules", responses=problems(Unauthorized, Forbidden))
async def list_schedules(principal: Administers, schedules: SchedulesDep) -> ScheduleList:  # noqa: ARG001
    """Every schedule, declared in code or created here: its next ticks in its zone, and its last runs."""
    return await schedules.list_all()


@router.post(
    "",
    status_code=201,
    operation_id="createSchedule",
    responses=problems(
        Unauthorized, Forbidden, UnreadableBody, BodyTooLarge, UnknownAction, InvalidInput, ScheduleExists
    ),
)
async def create_schedule(
    body: ScheduleCreate, principal: Administers, schedules: SchedulesDep, response: Response
) -> ScheduleRead:
    """Perform an action by the clock, from now on: one run a tick, whatever crashes. Its runs are yours."""
    created = await schedules.create(body, owner=principal.owner, actor=principal.actor)
    response.headers["Location"] = f"/schedules/{created.name}"
    return created


@router.get(
    "/{name}", operation_id="getSchedule", responses=problems(Unauthorized, Forbidden, InvalidInput, ScheduleNotFound)
)
async def get_schedule(name: ScheduleName, principal: Administers, schedules: SchedulesDep) -> ScheduleRead:  # noqa: ARG001
    """One schedule."""
    return await schedules.get(name)


@router.delete(
    "/{name}",
    status_code=204,
    operation_id="deleteSchedule",
    responses=problems(Unauthorized, Forbidden, InvalidInput, ScheduleNotFound, ScheduleDeclared),
)
async def delete_schedule(name: ScheduleName, principal: Administers, schedules: SchedulesDep) -> None:  # noqa: ARG001
    """Delete a schedule that was created here. Its runs stay."""
    await schedules.delete(name)


@router.post(
    "/{name}/run",
    status_code=202,
    operation_id="runSchedule",
    responses=problems(Unauthorized, Forbidden, InvalidInput, ScheduleNotFound, UnknownAction, AlreadyQueued, TooBusy),
)
async def run_schedule(
    name: ScheduleName,
    principal: Administers,  # noqa: ARG001
    services: ServicesDep,
    schedules: SchedulesDep,
    request: Request,
    response: Response,
) -> RunRead:
    """Perform its action now, as if a tick had come; also while it is paused. Its ticks come all the same."""
    run = await schedules.run(services.intake, name, trace_context=carried_trace(request.headers))
    response.headers["Location"] = run.links.self
    when_to_look_again(run, response)
    return run


@router.post(
    "/{name}/pause",
    operation_id="pauseSchedule",
    responses=problems(Unauthorized, Forbidden, InvalidInput, ScheduleNotFound),
)
async def pause_schedule(name: ScheduleName, principal: Administers, schedules: SchedulesDep) -> ScheduleRead:
    """Let no tick of a schedule become a run until somebody resumes it."""
    return await schedules.pause(name, actor=principal.actor)


@router.post(
    "/{name}/resume",
    operation_id="resumeSchedule",
    responses=problems(Unauthorized, Forbidden, InvalidInput, ScheduleNotFound),
)
async def resume_schedule(name: ScheduleName, principal: Administers, schedules: SchedulesDep) -> ScheduleRead:  # noqa: ARG001
    """Let the ticks of a schedule become runs again, from now on: those of the pause are over."""
    return await schedules.resume(name)
