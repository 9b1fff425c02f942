"""A call that is cancelled at a certain one of the moments at which it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any


class CancelledAt:
    """Awaits a call, and cancels it when it waits for the `moment`-th time."""

    def __init__(self, call: Awaitable[Any], moment: int) -> None:
        self._call = call
        self._moment = moment
        self.waits = 0
        """How often it has waited so far."""

    def __await__(self) -> Generator[Any, Any, Any]:
        waiting = self._call.__await__()
        try:
            future = next(waiting)
            while True:
                self.waits += 1
                if self.waits == self._moment:
                    if future is not None:
                        future.cancel()
                    future = waiting.throw(asyncio.CancelledError())
                    continue
                try:
                    answer = yield future
                except BaseException as error:
                    future = waiting.throw(error)
                else:
                    future = waiting.send(answer)
        except StopIteration as end:
            return end.value
