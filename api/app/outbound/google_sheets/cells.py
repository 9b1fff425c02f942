"""What a sheet consists of, whoever keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import NamedTuple

from app.errors import Rejected

ROWS_A_WRITE = 500
"""As many rows are written by one request."""


class Cell(NamedTuple):
    """What a cell is to hold. Rows and columns count from 1."""

    row: int
    column: int
    value: str | float


def as_text(value: object) -> str:
    """A cell as text, without what neither UTF-8 nor PostgreSQL has a place for; an empty cell is empty text."""
    text = "" if value is None else str(value)
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()


def in_writes(cells: Iterable[Cell]) -> Iterator[list[Cell]]:
    """The cells in the order of the sheet, as many together as one request writes."""
    rows = (list(row) for _, row in groupby(sorted(cells, key=lambda cell: cell[:2]), key=lambda cell: cell.row))
    while together := list(islice(rows, ROWS_A_WRITE)):
        yield [cell for row in together for cell in row]


def merged(place: str, sheet: str) -> Rejected:
    """A value that is written to the cell `place`, such as C3, would not be seen."""
    return Rejected(
        f"Cell {place} of the sheet {sheet!r} is merged with others, so it can hold no value of its own. "
        "Unmerge them, and try again."
    )


def calculated(place: str, sheet: str) -> Rejected:
    """A value would take the place of a formula, or break the one that fills the cell from another."""
    return Rejected(
        f"Cell {place} of the sheet {sheet!r} has a formula, which would be lost. "
        "Move the formula to another column, and try again."
    )
