"""Is it alive, can it work, will it go on? `/livez` never asks the database: an outage must not restart every API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi_rfc9457.server import problems
from pydantic import BaseModel, Field

from app.errors import DatabaseBehind, DatabaseUnavailable
from app.routers.dependencies import ServicesDep
from app.routers.readiness import ALIVE, Check, Examination, examine
from app.routers.strict import StrictRoute

router = APIRouter(tags=["health"], route_class=StrictRoute)

Verbose = Annotated[
    str | None,
    Query(max_length=5, description="With any value, or none: a line of text for each check; 503 if one has failed."),
]


def _in_lines(example: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"text/plain": {"schema": {"type": "string"}, "example": example}}}}


_ALIVE = _in_lines("[+]ping ok\nlivez check passed\n")
_CHECKS = "[+]database ok\n[+]schema ok\n[+]notify-queue ok\n[+]listen ok\nreadyz check passed\n"
_READY = _in_lines(_CHECKS) | problems(DatabaseUnavailable, DatabaseBehind)


class Health(BaseModel):
    """A word for people and probes."""

    status: str


class Readiness(Health):
    """That it can work, and what will end that if nobody looks."""

    notify_queue_usage: float = Field(
        description="How full PostgreSQL's NOTIFY queue is, from 0 to 1; while it is full, nothing can be submitted."
    )
    warnings: list[str] = Field(description="What somebody should see to soon, each with what to do.")


@router.get("/livez", operation_id="livez", response_model=Health, responses=_ALIVE)
async def livez(verbose: Verbose = None) -> Any:
    """This process answers."""
    return Health(status="alive") if verbose is None else _told(ALIVE, "livez")


@router.get("/startupz", operation_id="startupz", response_model=Readiness, responses=_READY)
@router.get("/healthz", operation_id="healthz", response_model=Readiness, responses=_READY)
@router.get("/readyz", operation_id="readyz", response_model=Readiness, responses=_READY)
async def readyz(services: ServicesDep, request: Request, verbose: Verbose = None) -> Any:
    """The database answers within a second, its schema is the one that this code needs, and it takes submissions.

    `/readyz`, `/healthz` and `/startupz` are the same: probes ask by different names.
    """
    found = await examine(services)
    if verbose is not None:
        return _told(found, request.url.path.removeprefix("/"))
    if found.problem:
        raise found.problem
    return Readiness(status="ready", notify_queue_usage=found.notify_queue_usage, warnings=found.warnings)


@router.get("/health", operation_id="health", responses=problems(DatabaseUnavailable, DatabaseBehind))
async def health(services: ServicesDep) -> Health:
    """The same, in the documents' word."""
    if problem := (await examine(services)).problem:
        raise problem
    return Health(status="healthy")


def _told(found: Examination, probe: str) -> Response:
    """Line by line, as the API server of Kubernetes tells it."""
    problem = found.problem
    lines = [*map(_line, found.checks), f"{probe} check {'failed' if problem else 'passed'}", ""]
    status, headers = (problem.status, problem.response_headers()) if problem else (200, {})
    return Response("\n".join(lines), status, headers, media_type="text/plain")


def _line(check: Check) -> str:
    if check.problem:
        return f"[-]{check.name} failed: {check.problem.detail}"
    return f"[+]{check.name} ok, but: {check.warning}" if check.warning else f"[+]{check.name} ok"
