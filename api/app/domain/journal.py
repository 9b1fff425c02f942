"""What the domain asks of the run that it works for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

Policy = Literal["cancel", "continue"]
"""What the first child that fails means: cancel the others and fail, or wait for them all."""


@dataclass(frozen=True)
class Outcome:
    """How a child has ended."""

    run_id: str
    state: str
    """succeeded, failed or cancelled."""
    result: Any = None
    """JSON."""
    error: dict[str, Any] | None = None
    """A problem object."""

    @property
    def has_succeeded(self) -> bool:
        """Whether there is a result."""
        return self.state == "succeeded"


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

    async def spawn(self, action: str, params: dict[str, Any] | None = None, *, key: str | None = None) -> str:
        """Submit a child run once, however many attempts this one takes."""
        ...

    async def gather(
        self, children: Sequence[str | tuple[str, dict[str, Any]]], *, policy: Policy = "cancel"
    ) -> list[Outcome]:
        """Wait for children, without a worker."""
        ...

    async def wait_for(self, signal: str, *, timeout: float | None = None) -> Any:
        """Wait to be told something, without a worker."""
        ...
