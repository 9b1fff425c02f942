"""Is it alive, can it work, will it go on? `/livez` never asks the database: an outage must not restart every API."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi_rfc9457.server import problems
from pydantic import BaseModel, Field

from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.queries import notify_queue_usage
from app.engine.rescue import NOTIFY_ALARM
from app.engine.schema import missing_revisions
from app.errors import DatabaseBehind, DatabaseUnavailable
from app.routers.dependencies import ServicesDep
from app.routers.problems import FIND_THE_LISTENER
from app.routers.strict import StrictRoute
from app.runs.lookout import LOOK_AGAIN_SECONDS

router = APIRouter(tags=["health"], route_class=StrictRoute)

PATIENCE_SECONDS = 1.0
_DEAF = (
    f"This process hears no NOTIFY: streams are up to {LOOK_AGAIN_SECONDS:g} s late. The log says why; LISTEN needs a "
    "connection of its own to the server, not one of a pooler."
)


class Health(BaseModel):
    """A word for people and probes."""

    status: str


class Readiness(Health):
    """That it can work, and what will end that if nobody looks."""

    notify_queue_usage: float = Field(
        description="How full PostgreSQL's NOTIFY queue is, from 0 to 1; while it is full, nothing can be submitted."
    )
    warnings: list[str] = Field(description="What somebody should see to soon, each with what to do.")


@router.get("/livez", operation_id="livez")
async def livez() -> Health:
    """This process answers."""
    return Health(status="alive")


@router.get("/readyz", operation_id="readyz", responses=problems(DatabaseUnavailable, DatabaseBehind))
async def readyz(services: ServicesDep) -> Readiness:
    """The database answers within a second, its schema is the one that this code needs, and it takes submissions."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        missing = await missing_revisions(services.engine)
        database = SQLAlchemyAsyncConnector(services.engine, timeout=PATIENCE_SECONDS)
        usage = await notify_queue_usage(database)
    if missing:
        raise DatabaseBehind(detail=f"The database lacks {', '.join(sorted(missing))}. Run: runledger db upgrade")
    if usage >= 1:
        raise DatabaseUnavailable(detail=f"PostgreSQL's NOTIFY queue is full. {FIND_THE_LISTENER}")
    warnings: list[str] = []
    if usage > NOTIFY_ALARM:
        warnings.append(f"PostgreSQL's NOTIFY queue is {usage:.0%} full. {FIND_THE_LISTENER}")
    if services.lookout.is_deaf:
        warnings.append(_DEAF)
    return Readiness(status="ready", notify_queue_usage=usage, warnings=warnings)


@router.get("/health", operation_id="health", responses=problems(DatabaseUnavailable, DatabaseBehind))
async def health(services: ServicesDep) -> Health:
    """The same, in the documents' word."""
    await readyz(services)
    return Health(status="healthy")
