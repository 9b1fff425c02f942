"""Scores are written into a sheet as a whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openpyxl import Workbook, load_workbook
from tests.support.workshop import Workshop

from app.domain.backlog.writing import WriteReport, write_scores
from app.errors import Rejected
from app.outbound.google_sheets.cells import ROWS_A_WRITE
from app.outbound.postgres.backlog import BacklogShelf
from app.runs.context import Run
from app.testing import perform

ROWS = ROWS_A_WRITE + 10


async def test_a_merged_cell_in_the_last_rows_leaves_the_first_as_they_were(workshop: Workshop, tmp_path: Path) -> None:
    file = tmp_path / "backlog.xlsx"
    book = Workbook()
    book.worksheets[0].append(["Key", "Title", "RICE", "WSJF"])
    for number in range(ROWS):
        book.worksheets[0].append([f"A-{number}", "x"])
    book.worksheets[0].merge_cells(f"C{ROWS}:C{ROWS + 1}")
    book.save(file)
    before = file.read_bytes()
    shelf = BacklogShelf(workshop.engine)
    await shelf.put([{"key": f"A-{number}", "title": "x", "description": ""} for number in range(ROWS)])
    await shelf.set_scores([{"key": f"A-{number}", "rice": 2.5, "wsjf": None} for number in range(ROWS)])

    @workshop.action()
    async def write(run: Run) -> WriteReport:
        return await write_scores(run, run.clients.sheets, shelf, str(file))

    done = await perform(workshop.action["write"])
    assert isinstance(done.error, Rejected)
    assert f"Cell C{ROWS + 1}" in str(done.error)
    assert (file.read_bytes(), done.steps) == (before, {})

    mended = load_workbook(file)
    mended.worksheets[0].unmerge_cells(f"C{ROWS}:C{ROWS + 1}")
    mended.save(file)
    assert (await perform(workshop.action["write"])).result == {"rows": ROWS, "cells_written": ROWS}
    scores: list[Any] = [row[2].value for row in load_workbook(file).worksheets[0].iter_rows(min_row=2)]
    assert scores == [2.5] * ROWS


async def test_a_formula_in_a_google_sheet_leaves_all_its_cells_as_they_were(workshop: Workshop) -> None:
    shelf = BacklogShelf(workshop.engine)
    await shelf.put([{"key": f"RM-{number}", "title": "x", "description": ""} for number in (1, 3, 24)])
    await shelf.set_scores([{"key": f"RM-{number}", "rice": 2.5, "wsjf": None} for number in (1, 3, 24)])

    @workshop.action()
    async def write(run: Run) -> WriteReport:
        return await write_scores(run, run.clients.sheets, shelf, "calculated-scores")

    done = await perform(workshop.action["write"])
    assert isinstance(done.error, Rejected)
    assert "Cell L4 of the sheet 'Roadmap' has a formula, which would be lost." in str(done.error)
    assert not any(call["path"].endswith("values:batchUpdate") for call in done.calls)
    # Where the formula says the same as the score, there is nothing to write.
    await shelf.set_scores([{"key": "RM-3", "rice": 1.0, "wsjf": None}])
    assert (await perform(workshop.action["write"])).result == {"rows": 24, "cells_written": 3}
