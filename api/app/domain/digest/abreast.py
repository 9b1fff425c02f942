"""Several things at a time, but only a few."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 4


async def abreast(do: Callable[[T], Awaitable[R]], things: Sequence[T]) -> list[R]:
    """What `do` makes of each, in their order."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def in_turn(thing: T) -> R:
        async with slots:
            return await do(thing)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(in_turn(thing)) for thing in things]
    return [task.result() for task in tasks]
