"""A run in memory, for the domain's own tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class MemoryJournal:
    """Keeps steps as they are; a second attempt is the same journal used again."""

    def __init__(self) -> None:
        self.steps: dict[str, Any] = {}
        self.told: list[tuple[float, float | None]] = []

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        self.told.append((done, total))

    async def log(self, message: str, *, level: str = "info", **fields: Any) -> None:
        pass

    async def step(self, name: str, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        if name not in self.steps:
            self.steps[name] = await function(*args, **kwargs)
        return self.steps[name]
