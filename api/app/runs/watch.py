"""What a watcher holds: what it has been told and has not yet taken."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel

from app.runs.schemas import EventRead, RunRead, read_run

SILENCE_SECONDS = 15.0
"""A watcher who is told nothing for this long is told that: nothing."""
ROOM = 1_000
"""A watcher who has not taken so many things is too slow: the watch ends, and can be taken up again."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False, slots=True)
class Told:
    """An event of a run; or its end, as the run itself. The same object for all who watch."""

    seq: int
    what: EventRead | RunRead


class _Inbox(Generic[T]):
    """Iterating over it gives what has come since the last time; nothing, after a silence."""

    def __init__(self, *, is_over: bool) -> None:
        self._items: list[T] = []
        self._came = asyncio.Event()
        self._is_over = is_over

    def end(self) -> None:
        """Nothing more will come."""
        self._is_over = True
        self._came.set()

    def _put(self, items: list[T]) -> None:
        if self._is_over:
            return
        self._items += items
        self._came.set()
        if len(self._items) > ROOM:
            # What has been put is whole up to here, and what is missing can be asked for.
            self.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[T]:
        if not self._items and not self._is_over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._came.wait()
        items, self._items = self._items, []
        if not items and self._is_over:
            raise StopAsyncIteration
        self._came.clear()
        return items


class Watch(_Inbox[Told]):
    """What happens to one run after `start`, the `seq` of an event."""

    def __init__(self, *, start: int, is_over: bool) -> None:
        super().__init__(is_over=is_over)
        self.start = start

    def put(self, told: list[Told]) -> None:
        """Tell the watcher."""
        self._put(told)


class Changes(_Inbox[RunRead]):
    """The runs of an owner that change, each as it is after some change; and the newest of whatever else is told."""

    def __init__(self, owner: str | None, *, is_over: bool) -> None:
        super().__init__(is_over=is_over)
        self._owner = owner
        self.has_lost_track = False
        """Some have changed, and it is not known which."""
        self._others: dict[str, BaseModel] = {}

    def lose_track(self) -> None:
        """Say that some have changed, and that it is not known which."""
        self.has_lost_track = True
        self._came.set()

    def tell(self, name: str, what: BaseModel) -> None:
        """Tell of something else, in the place of what was told under that name and has not been taken."""
        self._others[name] = what
        self._came.set()

    def take_others(self) -> dict[str, BaseModel]:
        """What else was told since this was asked last."""
        others, self._others = self._others, {}
        return others

    def put(self, rows: list[dict[str, Any]]) -> None:
        """Tell of those that are the owner's."""
        if mine := [read_run(row) for row in rows if self._owner in (None, row["owner"])]:
            self._put(mine)
