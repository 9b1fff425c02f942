"""Why a run is not running."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi_rfc9457.server import problems

from app.control import why
from app.control.schemas import Why
from app.errors import Forbidden, RunNotFound, Unauthorized
from app.routers.dependencies import ServicesDep
from app.routers.security import Reads
from app.routers.strict import StrictRoute

router = APIRouter(prefix="/runs", tags=["runs"], route_class=StrictRoute)


@router.get("/{run_id}/why", operation_id="explainRun", responses=problems(Unauthorized, Forbidden, RunNotFound))
async def explain_run(
    run_id: Annotated[str, Path(description="The id that the submission returned.", max_length=64)],
    services: ServicesDep,
    principal: Reads,
) -> Why:
    """Why a run is not running: every reason, in order of cause, each with a code and a sentence."""
    return await why.why(services.engine, run_id, owner=principal.owner, lease=services.settings.lease_seconds)
