"""Workers: who they are, what they hold, and whether they live."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi_rfc9457.server import problems

from app.control import workers
from app.control.schemas import WorkerList
from app.errors import Forbidden, Unauthorized
from app.routers.dependencies import ServicesDep
from app.routers.security import Administers
from app.routers.strict import StrictRoute

router = APIRouter(prefix="/workers", tags=["workers"], route_class=StrictRoute)


@router.get("", operation_id="listWorkers", responses=problems(Unauthorized, Forbidden))
async def list_workers(services: ServicesDep, principal: Administers) -> WorkerList:  # noqa: ARG001
    """Every worker: its heartbeat, its queues and actions, and the runs that it holds."""
    return await workers.list_workers(services.engine, lease=services.settings.lease_seconds)
