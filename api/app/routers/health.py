"""Is it alive, and can it work? `/livez` never asks the database: an outage must not restart every API."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi_rfc9457.server import problems
from pydantic import BaseModel

from app.engine.schema import missing_revisions
from app.errors import DatabaseBehind, DatabaseUnavailable
from app.routers.dependencies import ServicesDep

router = APIRouter(tags=["health"])

PATIENCE_SECONDS = 1.0


class Health(BaseModel):
    """A word for people and probes."""

    status: str


@router.get("/livez", operation_id="livez")
async def livez() -> Health:
    """This process answers."""
    return Health(status="alive")


@router.get("/readyz", operation_id="readyz", responses=problems(DatabaseUnavailable, DatabaseBehind))
async def readyz(services: ServicesDep) -> Health:
    """The database answers within a second, and its schema is the one that this code needs."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        missing = await missing_revisions(services.engine)
    if missing:
        raise DatabaseBehind(detail=f"The database lacks {', '.join(sorted(missing))}. Run: runledger db upgrade")
    return Health(status="ready")


@router.get("/health", operation_id="health", responses=problems(DatabaseUnavailable, DatabaseBehind))
async def health(services: ServicesDep) -> Health:
    """The same, in the documents' word."""
    await readyz(services)
    return Health(status="healthy")
