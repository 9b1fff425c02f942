"""Writes are written down: who asked for what, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import Request
from fastapi_rfc9457 import Problem
from starlette.responses import Response

from app.access import audit
from app.access.principal import Principal
from app.routers.problems import DATABASE_ERRORS
from app.routers.security import PRINCIPAL

_SUBMITS = "runledger.submits"
_REFUSALS = (403, 404, 409)
"""What somebody tried to do and was refused. What could not be understood is no write."""

log = logging.getLogger(__name__)
Handle = Callable[[Request], Coroutine[Any, Any, Response]]


def audited(handle: Handle, path: str) -> Handle:
    """Write down what `handle` did before its answer leaves."""

    async def handle_and_write_down(request: Request) -> Response:
        try:
            response = await handle(request)
        except Problem as problem:
            if problem.status in _REFUSALS:
                await _write_down(request, path, problem.status, None)
            raise
        # The statement that stored the runs has written them down.
        if not request.scope.get(_SUBMITS):
            await _write_down(request, path, response.status_code, response.headers.get("location"))
        return response

    return handle_and_write_down


def will_submit(request: Request) -> str:
    """Say that this request stores runs.

    Returns:
        The route that the audit log names for them.
    """
    request.scope[_SUBMITS] = True
    return _route_of(request)


async def write_down_refusals(request: Request, outcomes: Iterable[int]) -> None:
    """Write down what was refused of a request that asks for many things, and is itself accepted."""
    principal: Principal = request.scope[PRINCIPAL]
    route, refused = _route_of(request), [outcome for outcome in outcomes if outcome in _REFUSALS]
    if not refused:
        return
    try:
        engine = request.app.state.services.engine
        await audit.record_all(engine, actor=principal.actor, route=route, outcomes=refused)
    except DATABASE_ERRORS as error:
        log.error("Not in the audit log: %s %s %s: %s", principal.actor, route, refused, error)


def _route_of(request: Request) -> str:
    return f"{request.method} {request.scope['route'].path}"


def _last_part(location: str) -> str:
    # Not the query, which may be a signature.
    return location.partition("?")[0].rpartition("/")[2]


async def _write_down(request: Request, path: str, outcome: int, location: str | None) -> None:
    principal: Principal | None = request.scope.get(PRINCIPAL)
    if principal is None:
        return
    # What was named in the path, or else what was made.
    object_id = "/".join(request.path_params.values()) or (location and _last_part(location))
    route = f"{request.method} {path}"
    try:
        await audit.record(
            request.app.state.services.engine,
            actor=principal.actor, route=route, object_id=object_id, outcome=outcome,
        )  # fmt: skip
    except DATABASE_ERRORS as error:
        # It is done: the caller must know. Whoever reads the logs must, too.
        log.error("Not in the audit log: %s %s %r %d: %s", principal.actor, route, object_id, outcome, error)
