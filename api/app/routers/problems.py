"""Every error leaves the API as an RFC 9457 problem: no stack, no echo of what was sent, no 5xx for bad input."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

import asyncpg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from fastapi_rfc9457 import Problem
from fastapi_rfc9457.handlers import Handler, make_handlers
from fastapi_rfc9457.models import PROBLEM_MEDIA_TYPE
from fastapi_rfc9457.server import add_problem_handlers, get_problem_docs_router
from opentelemetry import trace
from procrastinate.exceptions import ConnectorException
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoFreeConnection
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.engine.connector import is_refused_value
from app.errors import DatabaseBehind, DatabaseUnavailable, Fault, InternalError, InvalidInput, NotNow
from app.routers.security import tell_standing
from app.runs.problems import document
from app.runs.values import escape

logger = logging.getLogger("app.api")

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

    async def on_gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    respond = make_handlers(strip_debug=True, instance_from_request=True)[StarletteHTTPException]

    async def on_http_error(request: Request, error: Exception) -> Response:
        response = await respond(request, error)
        if response.status_code == 405:
            # Starlette names the methods of the first route of that path only.
            response.headers["Allow"] = ", ".join(sorted(_methods(request)))
        return response

    app.add_exception_handler(Problem, render)
    app.add_exception_handler(StarletteHTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(NothingMore, on_nothing_more)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_middleware(Mistakes)
    for kind in DATABASE_ERRORS:
        app.add_exception_handler(kind, _on_database_error(render))


def _methods(request: Request) -> set[str]:
    path = request.scope["path"]
    matching = [
        route
        for route in iter_route_contexts(request.app.routes)
        if route.path_format and compile_path(route.path_format)[0].match(path)
    ]
    # `/runs/batch` is no run.
    named = {route.path_format for route in matching if route.path_format == path}
    own = named or {route.path_format for route in matching[:1]}
    there = [route for route in matching if route.path_format in own]
    methods = {method for route in there for method in route.methods or ()}
    is_stream = any(getattr(route.original_route, "is_stream", False) for route in there)
    return methods if is_stream or "GET" not in methods else methods | {"HEAD"}


class Mistakes:
    """Answers 500 with an id, and logs the cause under it: what an exception says may be a secret.

    Inside Starlette's own handler of them, which would have the server log each once more, and without the id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def watched_send(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            id_ = _id_of_trace() or uuid.uuid4().hex
            logger.error("Internal error %s: %s %s", id_, scope["method"], _route(scope), exc_info=error)
            if has_begun:
                raise AnswerBroken(id_) from None
            await answer(InternalError(detail="A mistake of this program; its log has the cause.", id=id_))(
                scope, receive, send
            )


class AnswerBroken(Exception):
    """An answer ended before its end; the log has the cause under the id. The server closes the connection."""


def answer(problem: Problem) -> Response:
    """The problem document as an answer, where there is no route that raises it."""
    return Response(as_json(problem), problem.status, media_type=PROBLEM_MEDIA_TYPE)


def as_json(problem: Problem) -> bytes:
    """The problem document."""
    return json.dumps(document(problem)).encode()


def _id_of_trace() -> str | None:
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def _route(scope: Scope) -> str:
    # Not the path, which is the caller's to fill.
    return getattr(scope.get("route"), "path", "an unknown route")


def _understood(error: RequestValidationError) -> InvalidInput:
    return InvalidInput(errors=[_fault(fault["loc"], _said(fault), fault["type"]) for fault in error.errors()])


def _said(fault: dict[str, Any]) -> str:
    if fault["type"] == "model_attributes_type":
        return "Send a JSON object."
    return fault["msg"].removeprefix("Value error, ")


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
