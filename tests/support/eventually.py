"""Wait for something another process or task does, as long as it takes and not longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(ask: Callable[[], Awaitable[T]], *, within: float = 20) -> T:
    """Ask again and again until the answer is true, and return it; a `TimeoutError` after `within` seconds."""
    async with asyncio.timeout(within):
        while not (answer := await ask()):
            await asyncio.sleep(0)
    return answer
