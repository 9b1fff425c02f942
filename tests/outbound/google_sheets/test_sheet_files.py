"""A CSV or XLSX file in a sheet's place."""

from __future__ import annotations

from pathlib import Path

import pytest
from openpyxl import Workbook, load_workbook
from openpyxl.worksheet.formula import ArrayFormula

from app.config import Settings
from app.errors import Rejected
from app.outbound.google_sheets.cells import Cell
from app.outbound.google_sheets.client import SheetsClient
from app.outbound.stubs import Stubs

SCORES = [Cell(1, 3, "RICE"), Cell(2, 3, 1.5), Cell(4, 1, "B-2")]


@pytest.fixture
def sheets(keyless: Settings, stubs: Stubs) -> SheetsClient:
    return SheetsClient(keyless, stubs)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
async def test_a_csv_file_is_read_and_written_as_it_is(sheets: SheetsClient, tmp_path: Path, delimiter: str) -> None:
    file = tmp_path / "backlog.csv"
    file.write_text("\ufeffKey|Title\nA-1|Été 漢\n".replace("|", delimiter), encoding="utf-8")
    file.chmod(0o640)
    assert await sheets.read(str(file)) == [["Key", "Title"], ["A-1", "Été 漢"]]
    await sheets.write(str(file), SCORES)
    assert await sheets.read(str(file)) == [["Key", "Title", "RICE"], ["A-1", "Été 漢", "1.5"], [], ["B-2"]]
    assert delimiter in file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["backlog.csv"]


async def test_an_xlsx_file_is_read_and_written_and_keeps_what_else_it_has(
    sheets: SheetsClient, tmp_path: Path
) -> None:
    file = tmp_path / "backlog.xlsx"
    book = Workbook()
    first = book.worksheets[0]
    first.append(["Key", "Title"])
    first.append(["A-1", 3])
    book.create_sheet("Notes").append(["kept"])
    book.save(file)
    assert await sheets.read(str(file)) == [["Key", "Title"], ["A-1", "3"]]
    await sheets.write(str(file), SCORES)
    rows = await sheets.read(str(file))
    assert rows[:2] == [["Key", "Title", "RICE"], ["A-1", "3", "1.5"]]
    assert rows[3] == ["B-2", "", ""]
    assert load_workbook(file)["Notes"]["A1"].value == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["backlog.xlsx"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (Cell(3, 3, 2.5), r"Cell C3 of the sheet 'Roadmap' is merged with others.* Unmerge them"),
        (Cell(4, 3, 2.5), r"Cell C4 of the sheet 'Roadmap' has a formula.* another column"),
        (Cell(5, 3, 2.5), r"Cell C5 of the sheet 'Roadmap' has a formula"),
        (Cell(6, 3, 2.5), r"Cell C6 of the sheet 'Roadmap' has a formula"),
    ],
    ids=["merged", "formula", "array formula", "filled by an array formula"],
)
async def test_a_cell_that_can_hold_no_value_is_named_and_nothing_is_written(
    sheets: SheetsClient, tmp_path: Path, cell: Cell, message: str
) -> None:
    file = tmp_path / "backlog.xlsx"
    book = Workbook()
    book.worksheets[0].title = "Roadmap"
    for row in (["Key", "Title", "RICE"], ["A-1", "x", 1], ["A-2", "x"], ["A-3", "x", "=C2*2"], ["A-4", "x"]):
        book.worksheets[0].append(row)
    book.worksheets[0].merge_cells("C2:C3")
    book.worksheets[0]["C5"] = ArrayFormula("C5:C6", "=C2:C3*2")
    book.save(file)
    before = file.read_bytes()
    cells = [Cell(2, 3, 1.5), cell]
    for attempt in (sheets.expect_writable(str(file), cells), sheets.write(str(file), cells)):
        with pytest.raises(Rejected, match=message):
            await attempt
    assert file.read_bytes() == before
    await sheets.write(str(file), cells[:1])
    assert load_workbook(file)["Roadmap"]["C2"].value == 1.5


@pytest.mark.parametrize("name", ["backlog.csv", "backlog.xlsx"])
async def test_a_file_that_is_not_there_or_is_something_else_is_rejected_and_left_alone(
    sheets: SheetsClient, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    with pytest.raises(Rejected, match="Set BACKLOG_SHEET to one that the workers can see"):
        await sheets.read(str(file))
    file.write_bytes(b"\xff\xfe\x00 no text")
    for attempt in (sheets.read(str(file)), sheets.write(str(file), SCORES)):
        with pytest.raises(Rejected, match="Save it as CSV in UTF-8, or as XLSX"):
            await attempt
    assert file.read_bytes() == b"\xff\xfe\x00 no text"
    assert [path.name for path in tmp_path.iterdir()] == [name]
