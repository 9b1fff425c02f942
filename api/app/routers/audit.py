"""Who did what: the door to the audit log, and how requests get into it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi_rfc9457.server import problems

from app.access import audit
from app.access.audit import AuditPage
from app.errors import InvalidCursor, InvalidInput
from app.routers.dependencies import ServicesDep
from app.routers.security import Administers
from app.routers.strict import StrictRoute
from app.runs.schemas import NO_NUL

router = APIRouter(tags=["audit"], route_class=StrictRoute)


@router.get("/audit", operation_id="listAuditEntries", responses=problems(InvalidCursor, InvalidInput))
async def list_audit_entries(
    services: ServicesDep,
    _: Administers,
    actor: Annotated[str | None, Query(max_length=300, pattern=NO_NUL)] = None,
    object_id: Annotated[str | None, Query(max_length=255, pattern=NO_NUL)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> AuditPage:
    """Every write and who did it, newest first: submissions, changes, and what was refused."""
    return await audit.list_page(
        services.engine, limit=limit, before=_decoded(cursor), actor=actor, object_id=object_id
    )


def _decoded(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 18):
        raise InvalidCursor(detail="The cursor did not come from this API.")
    return int(cursor)
