"""Queues: what waits in them, who works on them, and pausing them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi_rfc9457.server import problems

from app.control import queues
from app.control.schemas import QueueList, QueuePauseCreate, QueueRead
from app.errors import BodyTooLarge, Forbidden, InvalidInput, Unauthorized, UnreadableBody
from app.routers.dependencies import ServicesDep
from app.routers.security import Administers
from app.routers.strict import StrictRoute
from app.runs.schemas import NO_NUL

router = APIRouter(prefix="/queues", tags=["queues"], route_class=StrictRoute)

QueueName = Annotated[str, Path(min_length=1, max_length=128, pattern=NO_NUL)]


@router.get("", operation_id="listQueues", responses=problems(Unauthorized, Forbidden))
async def list_queues(services: ServicesDep, principal: Administers) -> QueueList:  # noqa: ARG001
    """Every queue: how much waits in each state, how old the oldest is, who works on it, and whether it is paused."""
    return await queues.list_queues(services.engine, lease=services.settings.lease_seconds)


@router.post(
    "/{name}/pause",
    operation_id="pauseQueue",
    responses=problems(Unauthorized, Forbidden, UnreadableBody, BodyTooLarge, InvalidInput),
)
async def pause_queue(
    name: QueueName, services: ServicesDep, principal: Administers, body: QueuePauseCreate | None = None
) -> QueueRead:
    """Let no worker start a run of a queue from now on, until somebody resumes it or `resume_at` has come.

    What runs goes on. Pausing again replaces the reason and the time.
    """
    return await queues.pause(
        services.engine,
        name,
        body or QueuePauseCreate(),
        actor=principal.actor,
        lease=services.settings.lease_seconds,
    )


@router.post("/{name}/resume", operation_id="resumeQueue", responses=problems(Unauthorized, Forbidden, InvalidInput))
async def resume_queue(name: QueueName, services: ServicesDep, principal: Administers) -> QueueRead:  # noqa: ARG001
    """Let workers start runs of a queue again, at once. A queue that is not paused stays as it is."""
    return await queues.resume(services.engine, name, lease=services.settings.lease_seconds)
