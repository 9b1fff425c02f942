"""What the backlog needs of others: a sheet, a place to keep items, and somebody who classifies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from app.outbound.google_sheets.cells import Cell

M = TypeVar("M", bound=BaseModel)

Item = Mapping[str, Any]
"""What an item is made of, by the names of `BacklogItem`; and its `key`, `rice`, `wsjf` and `category`."""


class Sheets(Protocol):
    """Sheets by their names; `None` is the demo."""

    async def read(self, sheet: str | None) -> list[list[str]]:
        """Its rows."""
        ...

    async def expect_writable(self, sheet: str | None, cells: Sequence[Cell]) -> None:
        """Return if these cells can be written."""
        ...

    async def write(self, sheet: str | None, cells: Sequence[Cell]) -> None:
        """Write cells."""
        ...


class Shelf(Protocol):
    """Where items are kept, in the order of their keys."""

    async def put(self, items: Sequence[Item]) -> dict[str, int]:
        """Add or change items: how many were `added`, how many `changed`."""
        ...

    async def keep_only(self, keys: Sequence[str]) -> int:
        """Remove all others: how many."""
        ...

    async def count(self) -> int:
        """How many there are."""
        ...

    async def list_after(self, key: str, *, limit: int, unclassified: bool = False) -> list[Item]:
        """Those after a key; "" is before them all."""
        ...

    async def set_scores(self, scores: Sequence[Item]) -> int:
        """`key`, `rice` and `wsjf` of items: how many of them had others."""
        ...

    async def set_categories(self, categories: Mapping[str, str]) -> None:
        """By key."""
        ...

    async def list_scores(self) -> list[Item]:
        """`key`, `rice` and `wsjf` of all."""
        ...

    async def list_best(self, limit: int) -> list[Item]:
        """`key`, `title`, `rice` and `wsjf` of those with the highest RICE."""
        ...


class Writer(Protocol):
    """Who classifies."""

    async def write(self, *, instructions: str, prompt: str, output: type[M]) -> M:
        """An answer that fits the model."""
        ...
