"""Errors as problem objects (RFC 9457): what is stored with a run that failed."""

from __future__ import annotations

import dataclasses
import re
import traceback
from typing import Any

import asyncpg
from fastapi_rfc9457 import Problem as HttpProblem
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from app.engine.endings import Problem
from app.engine.retry import leaves
from app.errors import Fault
from app.runs.values import escape, storable_text

LONGEST_DETAIL = 2_000
LONGEST_TRACEBACK = 20_000


def describe(error: BaseException) -> Problem:
    """The problem object of whatever an action raised, and its traceback kept apart.

    Of a group of errors, as an `asyncio.TaskGroup` raises it: that of the only one in it, or what each of them says.
    """
    errors = list(leaves(error))
    document = _told(errors[0]) if len(errors) == 1 else _told_together(errors)
    trace = storable_text("".join(traceback.format_exception(error)))[-LONGEST_TRACEBACK:]
    return Problem({name: value for name, value in document.items() if value}, trace)


def _told(error: BaseException) -> dict[str, Any]:
    return {
        "type": f"/problems/{slug(type(error).__name__)}",
        "title": _title(error),
        "detail": storable_text(_detail(error))[:LONGEST_DETAIL],
        **_members(error),
    }


def _told_together(errors: list[BaseException]) -> dict[str, Any]:
    each = [": ".join(filter(None, (_title(error), _detail(error)))) for error in errors]
    return {
        "type": "/problems/several",
        "title": "Several errors",
        "detail": storable_text("; ".join(each))[:LONGEST_DETAIL],
    }


def document(problem: HttpProblem) -> dict[str, Any]:
    """A problem as it is answered, for an answer that holds several."""
    told = {
        "type": f"/problems/{slug(type(problem).__name__)}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        **_members(problem),
    }
    return {name: value for name, value in told.items() if value is not None}


def faults(error: ValidationError, pointer: str) -> list[Fault]:
    """What Pydantic found, each with a JSON pointer below `pointer`, and without the values that were sent."""
    return [
        Fault(
            pointer=pointer + "".join(f"/{escape(str(part))}" for part in fault["loc"]),
            detail=fault["msg"],
            type=fault["type"],
        )
        for fault in error.errors(include_input=False, include_url=False, include_context=False)
    ]


def slug(name: str) -> str:
    """`RateLimitedError` → `rate-limited`."""
    base = re.sub(r"(Problem|Error|Exception)$", "", name) or name
    return _words(base).lower().replace(" ", "-")


def _spaced(name: str) -> str:
    return _words(name).capitalize()


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)


def _title(error: BaseException) -> str:
    return error.title if isinstance(error, HttpProblem) else _spaced(type(error).__name__)


def _detail(error: BaseException) -> str:
    match error:
        case HttpProblem():
            # Not its str(), which would repeat the members.
            return error.detail or ""
        case SQLAlchemyError() | asyncpg.PostgresError():
            # Not its text, which quotes the statement and values. The traceback has it.
            return "The database refused a statement, or did not answer."
        case _:
            return str(error)


def _members(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, HttpProblem):
        return {}
    own = [field.name for field in dataclasses.fields(error) if field.name not in ("detail", "instance")]  # pyright: ignore[reportArgumentType]
    return {name: _json(getattr(error, name)) for name in own}


def _json(value: Any) -> Any:
    match value:
        case BaseModel():
            return value.model_dump(mode="json")
        case list():
            return [_json(item) for item in value]
        case _:
            return value
