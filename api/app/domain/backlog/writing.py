"""Scores back into the sheet: only where it says something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel

from app.domain.backlog.items import cell, columns_of
from app.domain.backlog.neighbours import Item, Sheets, Shelf
from app.domain.journal import Journal
from app.outbound.google_sheets.cells import ROWS_A_WRITE, Cell

SCORES = {"rice": "RICE", "wsjf": "WSJF"}
"""Columns, and how they are headed if the sheet does not have them."""


class WriteReport(BaseModel):
    """How many rows the sheet has below its header, and how many of its cells had to be written."""

    rows: int
    cells_written: int


async def write_scores(run: Journal, sheets: Sheets, shelf: Shelf, sheet: str | None) -> WriteReport:
    """Write the scores of the items that the sheet has, into its columns RICE and WSJF.

    Raises:
        Rejected: the sheet is no backlog, or it or one of the cells may not be written.
        Unavailable: it cannot be read or written now.
    """
    # Not a step: rows may have moved since an attempt before, and a score must not be written beside another item.
    rows = await sheets.read(sheet)
    scores = {str(item["key"]): item for item in await shelf.list_scores()}
    changes = _changes(rows, scores)
    # Before the first row is written: there is no half of the scores in a sheet because of a cell further down.
    await sheets.expect_writable(sheet, changes)
    written = 0
    for first in range(1, len(rows) + 1, ROWS_A_WRITE):
        last = min(first + ROWS_A_WRITE - 1, len(rows))
        cells = [change for change in changes if first <= change.row <= last]
        written += await run.step(f"rows-{first}-to-{first + ROWS_A_WRITE - 1}", _write, sheets, sheet, cells)
        await run.progress(last, len(rows), f"{last} of {len(rows)} rows written")
    return WriteReport(rows=len(rows) - 1, cells_written=written)


async def _write(sheets: Sheets, sheet: str | None, cells: Sequence[Cell]) -> int:
    await sheets.write(sheet, cells)
    return len(cells)


def _changes(rows: Sequence[Sequence[str]], scores: Mapping[str, Item]) -> list[Cell]:
    """The cells that are to say something else."""
    columns = columns_of(rows)
    width = max(map(len, rows))
    missing = [name for name in SCORES if name not in columns]
    places = columns | {name: width + number for number, name in enumerate(missing)}
    header = [Cell(1, places[name] + 1, SCORES[name]) for name in missing]
    return [*header, *_differences(rows[1:], scores, places)]


def _differences(rows: Sequence[Sequence[str]], scores: Mapping[str, Item], places: dict[str, int]) -> Iterator[Cell]:
    for number, row in enumerate(rows, start=2):
        item = scores.get(cell(row, places["key"]).strip(), {})
        for name in SCORES.keys() & item.keys():
            score: float | None = item[name]
            if not _says(cell(row, places[name]), score):
                yield Cell(number, places[name] + 1, "" if score is None else score)


def _says(text: str, score: float | None) -> bool:
    try:
        return (float(text) if text else None) == score
    except ValueError:
        return False
