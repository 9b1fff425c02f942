"""What runs have returned, and why there is nothing where there is nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fastapi import APIRouter
from fastapi_rfc9457.server import problems

from app.errors import Forbidden, NoResult, ResultExpired, RunNotFinished, RunNotFound, Unauthorized
from app.routers.dependencies import ServicesDep
from app.routers.headers import patience
from app.routers.runs import RunId
from app.routers.security import Reads
from app.routers.strict import StrictRoute
from app.runs import service
from app.runs.state import RunState

router = APIRouter(prefix="/runs", tags=["runs"], route_class=StrictRoute)


@router.get(
    "/{run_id}/result",
    operation_id="getRunResult",
    responses={200: {"description": "What the action returned: any JSON."}}
    | problems(Unauthorized, Forbidden, RunNotFound, RunNotFinished, NoResult, ResultExpired),
)
async def get_result(run_id: RunId, services: ServicesDep, principal: Reads) -> Any:
    """What a run that succeeded has returned, and nothing else."""
    try:
        run = await service.get(services.engine, run_id, owner=principal.owner)
    except RunNotFound:
        days = services.settings.retention_days
        if service.may_be_pruned(run_id, older_than=timedelta(days=days)):
            raise ResultExpired(detail=f"Runs are deleted {days} days after their end, with their results.") from None
        raise
    if (seconds := patience(run)) is not None:
        raise RunNotFinished(detail=f"The run is {run.state}.", state=run.state, retry_after=seconds)
    if run.state is not RunState.SUCCEEDED:
        raise NoResult(detail=f"The run is {run.state}.", state=run.state, error=run.error)
    return run.result
