"""Steps: what is done once per run, and read back by whoever comes later."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, get_type_hints

from pydantic import TypeAdapter

from app.runs.values import check_storable

P = ParamSpec("P")
R = TypeVar("R")

Keep = Callable[[str, Any], Awaitable[None]]
"""Stores the result of a step, JSON, under its name."""


class Steps:
    """The finished steps of a run, by name."""

    def __init__(self, finished: dict[str, Any], keep: Keep) -> None:
        self.finished = finished
        self._keep = keep

    async def step(self, name: str, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns, or has returned when it was called under that name before."""
        result_type = TypeAdapter[R](_return_hint(function))
        if name in self.finished:
            return result_type.validate_python(self.finished[name])
        result = await function(*args, **kwargs)
        stored = result_type.dump_python(result, mode="json")
        check_storable(stored, f"/steps/{name}")
        await self._keep(name, stored)
        self.finished[name] = stored
        return result


def _return_hint(function: Callable[..., Any]) -> Any:
    target = function if inspect.isroutine(function) else type(function).__call__
    return get_type_hints(target).get("return", Any)
