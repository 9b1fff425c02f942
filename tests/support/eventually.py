"""Wait for something another process or task does, as long as it takes and not longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(ask: Callable[[], Awaitable[T]], *, within: float = 20) -> T:
    """Ask again and again until the answer is true, and return it; a `TimeoutError` after `within` seconds.

    Not without pauses: whoever is waited for wants the processor. What took long is seen a tenth later, 50 ms at most.
    """
    began = time.monotonic()
    async with asyncio.timeout(within):
        while not (answer := await ask()):
            await asyncio.sleep(min((time.monotonic() - began) / 10, 0.05))
    return answer
