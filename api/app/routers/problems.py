"""Every error leaves the API as an RFC 9457 problem: no stack, no echo of what was sent, no 5xx for bad input."""

from __future__ import annotations

import asyncpg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_rfc9457 import Problem
from fastapi_rfc9457.handlers import Handler, make_handlers
from fastapi_rfc9457.server import add_problem_handlers, get_problem_docs_router
from procrastinate.exceptions import ConnectorException
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from starlette.responses import Response

from app.engine.connector import is_refused_value
from app.errors import DatabaseBehind, DatabaseUnavailable, Fault, InvalidInput, NotNow, UnreadableBody
from app.routers.security import tell_standing
from app.runs.values import escape

_BEHIND = (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError, asyncpg.UndefinedColumnError)
# Connection, resources, intervention, system, read-only, deadlock and serialisation, lock not available.
_TRANSIENT = ("08", "53", "54", "57", "58", "25006", "40", "55P03")
DATABASE_ERRORS = (
    ConnectorException,
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


FIND_THE_LISTENER = "End the session that LISTENs inside a long transaction (docs/how-to/deploy.md, What to watch)."

_UNSTORABLE = Fault(pointer="", detail="A value cannot be stored.", type="unstorable")


class NothingMore(Exception):
    """The client has seen everything there will ever be: 204, and an EventSource stops asking."""


def install_problem_handlers(app: FastAPI) -> None:
    """Render every error of the app as a problem document, and serve a page for each problem type."""
    add_problem_handlers(app, strip_debug=True)
    app.include_router(get_problem_docs_router(), prefix="/problems", include_in_schema=False)
    written = make_handlers(strip_debug=True, instance_from_request=True)[Problem]

    async def render(request: Request, error: Exception) -> Response:
        response = await written(request, error)
        tell_standing(request, response)
        return response

    async def on_invalid_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await render(request, _understood(error))

    async def on_nothing_more(_request: Request, _error: Exception) -> Response:
        return Response(status_code=204)

    app.add_exception_handler(Problem, render)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(NothingMore, on_nothing_more)
    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, _on_database_error(render))


def _understood(error: RequestValidationError) -> Problem:
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return UnreadableBody(detail="The body is not JSON in UTF-8.")
    if any(fault["loc"] == ("body",) and fault["type"] not in ("missing", "value_error") for fault in faults):
        return UnreadableBody(detail="Send a JSON object, with Content-Type: application/json.")
    return InvalidInput(errors=[_fault(fault["loc"], fault["msg"], fault["type"]) for fault in faults])


def _fault(where: tuple[str | int, ...], message: str, kind: str) -> Fault:
    place, *path = where
    if place == "body":
        pointer = "".join(f"/{escape(str(part))}" for part in path)
    else:
        pointer = str(path[0]) if path else str(place)
    return Fault(pointer=pointer, detail=message, type=kind)


def _on_database_error(render: Handler) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        problem = InvalidInput(errors=[_UNSTORABLE]) if is_refused_value(error) else database_problem(error)
        if problem is None:
            raise error
        return await render(request, problem)

    return handle


def database_problem(error: BaseException) -> NotNow | None:
    """What to tell a caller about an error of the database; `None` if it is our mistake."""
    if isinstance(error, NoFreeConnection):
        return DatabaseUnavailable(
            detail="Every connection to the database is in use. Look whether what you asked for was done."
        )
    said = _said_by_postgres(error)
    if isinstance(said, _BEHIND):
        return DatabaseBehind(detail="The database schema is behind. Run: runledger db upgrade")
    if isinstance(said, asyncpg.ProgramLimitExceededError) and "NOTIFY" in str(said):
        return DatabaseUnavailable(detail=f"Nothing was stored: PostgreSQL's NOTIFY queue is full. {FIND_THE_LISTENER}")
    if said is None or str(vars(type(said)).get("sqlstate") or "08").startswith(_TRANSIENT):
        return DatabaseUnavailable(detail="PostgreSQL does not answer. Look whether what you sent was stored.")
    return None


def _said_by_postgres(error: BaseException | None) -> asyncpg.PostgresError | None:
    while error is not None and not isinstance(error, asyncpg.PostgresError):
        error = error.__cause__
    return error
