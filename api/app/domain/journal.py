"""What the domain asks of the run that it works for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Journal(Protocol):
    """A run, as far as the domain sees it: `app.runs.context.Run`, or a test's."""

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far it is."""
        ...

    async def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """Write a line of its history."""
        ...

    async def step(self, name: str, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do something once, however many attempts it takes."""
        ...
