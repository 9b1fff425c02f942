"""A CSV or XLSX file in a sheet's place. Blocks: for a thread."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from app.errors import Rejected
from app.outbound.google_sheets.cells import Cell, as_text, calculated, merged

if TYPE_CHECKING:
    from openpyxl.cell import Cell as Place
    from openpyxl.worksheet.worksheet import Worksheet

DELIMITERS = ",;\t"


def as_file(sheet: str) -> Path | None:
    """The file, if it is one that is named."""
    path = Path(sheet)
    return path if path.suffix.lower() in (".csv", ".xlsx") and "://" not in sheet else None


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file in UTF-8, or of the first sheet of an XLSX file.

    Raises:
        Rejected: there is no such file, or it cannot be read.
    """
    with _faults_as_errors(path):
        return _read_csv(path)[0] if _is_csv(path) else _read_xlsx(path)


def expect_writable(path: Path, cells: Sequence[Cell]) -> None:
    """Return if each of these cells can hold a value.

    Raises:
        Rejected: one of them is merged with others, or has a formula; or the file cannot be read.
    """
    if not _is_csv(path):
        with _faults_as_errors(path):
            _expect_places(path, cells)


def write_cells(path: Path, cells: Sequence[Cell]) -> None:
    """Write cells, all or none. Whoever reads the file meanwhile sees it as it was, or as it is then.

    Raises:
        Rejected: as `expect_writable`, or the file's folder cannot be written to.
    """
    with _faults_as_errors(path):
        (_write_csv if _is_csv(path) else _write_xlsx)(path, cells)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _read_csv(path: Path) -> tuple[list[list[str]], str]:
    """The rows, and what is between their cells."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        delimiter = max(DELIMITERS, key=header.count)
        return [[as_text(cell) for cell in row] for row in csv.reader(file, delimiter=delimiter)], delimiter


def _write_csv(path: Path, cells: Sequence[Cell]) -> None:
    rows, delimiter = _read_csv(path)
    for cell in cells:
        rows += [[] for _ in range(cell.row - len(rows))]
        row = rows[cell.row - 1]
        row += [""] * (cell.column - len(row))
        row[cell.column - 1] = str(cell.value)

    def write(copy: Path) -> None:
        with copy.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)

    _replace(path, write)


def _read_xlsx(path: Path) -> list[list[str]]:
    # Not at the top: it takes a quarter of a second to import, and not every worker reads such a file.
    from openpyxl import load_workbook

    with contextlib.closing(load_workbook(path, read_only=True, data_only=True)) as book:
        rows = book.worksheets[0].iter_rows(values_only=True)
        return [[as_text(cell) for cell in row] for row in rows]


def _expect_places(path: Path, cells: Sequence[Cell]) -> None:
    from openpyxl import load_workbook

    with contextlib.closing(load_workbook(path)) as book:
        _places(book.worksheets[0], cells)


def _write_xlsx(path: Path, cells: Sequence[Cell]) -> None:
    from openpyxl import load_workbook

    with contextlib.closing(load_workbook(path)) as book:
        for cell, place in zip(cells, _places(book.worksheets[0], cells), strict=True):
            place.value = cell.value
        _replace(path, book.save)


def _places(sheet: Worksheet, cells: Sequence[Cell]) -> list[Place]:
    """Where these values go."""
    from openpyxl.cell import MergedCell
    from openpyxl.worksheet.cell_range import CellRange

    arrays = [CellRange(each) for each in sheet.array_formulae.values()]
    places: list[Place] = []
    for cell in cells:
        place = sheet.cell(cell.row, cell.column)
        if isinstance(place, MergedCell):
            raise merged(place.coordinate, sheet.title)
        if place.data_type == "f" or any(place.coordinate in array for array in arrays):
            raise calculated(place.coordinate, sheet.title)
        places.append(place)
    return places


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    copy = Path(name)
    try:
        write(copy)
        shutil.copymode(path, copy)
        copy.replace(path)
    finally:
        copy.unlink(missing_ok=True)


@contextlib.contextmanager
def _faults_as_errors(path: Path) -> Generator[None]:
    try:
        yield
    except FileNotFoundError:
        raise Rejected(f"There is no file {path}. Set BACKLOG_SHEET to one that the workers can see.") from None
    except PermissionError as fault:
        raise Rejected(f"{path} may not be read or replaced. Let the workers do so.") from fault
    except (UnicodeDecodeError, csv.Error, BadZipFile, KeyError) as fault:
        raise Rejected(f"{path.name} cannot be read. Save it as CSV in UTF-8, or as XLSX.") from fault
