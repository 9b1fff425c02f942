"""Dead letters: what has failed for good, by likeness."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi_rfc9457.server import problems

from app.control import dead_letters
from app.control.schemas import DeadLetterList, DeadLetterOutcome
from app.errors import DeadLetterNotFound, Forbidden, InvalidCursor, InvalidInput, Unauthorized
from app.routers.dependencies import ServicesDep
from app.routers.security import Administers
from app.routers.strict import StrictRoute
from app.runs.schemas import NO_NUL

router = APIRouter(prefix="/dead-letters", tags=["dead letters"], route_class=StrictRoute)

Fingerprint = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="As `GET /dead-letters` tells it.")]


@router.get(
    "", operation_id="listDeadLetters", responses=problems(Unauthorized, Forbidden, InvalidCursor, InvalidInput)
)
async def list_dead_letters(
    services: ServicesDep,
    principal: Administers,  # noqa: ARG001
    action: Annotated[str | None, Query(max_length=64, pattern=NO_NUL)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> DeadLetterList:
    """Failed runs that nobody has discarded, grouped by what went wrong; the group seen last comes first."""
    return await dead_letters.list_page(services.engine, action=action, limit=limit, cursor=cursor)


@router.post(
    "/{fingerprint}/retry",
    operation_id="retryDeadLetters",
    responses=problems(Unauthorized, Forbidden, InvalidInput, DeadLetterNotFound),
)
async def retry_dead_letters(
    fingerprint: Fingerprint,
    services: ServicesDep,
    principal: Administers,  # noqa: ARG001
) -> DeadLetterOutcome:
    """Give every run of a group another attempt, up to 10,000 a request. Finished steps are kept."""
    return await dead_letters.retry(services.engine, fingerprint)


@router.post(
    "/{fingerprint}/discard",
    operation_id="discardDeadLetters",
    responses=problems(Unauthorized, Forbidden, InvalidInput, DeadLetterNotFound),
)
async def discard_dead_letters(
    fingerprint: Fingerprint,
    services: ServicesDep,
    principal: Administers,  # noqa: ARG001
) -> DeadLetterOutcome:
    """Take a group, up to 10,000 runs a request, out of this list. Its runs stay, failed, to be read and retried."""
    return await dead_letters.discard(services.engine, fingerprint)
