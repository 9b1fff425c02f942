"""What there is in the cells of a Google sheet, beside the values that they show."""

from __future__ import annotations

from collections.abc import Sequence

from gspread.utils import rowcol_to_a1
from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic.alias_generators import to_camel

from app.outbound.google_sheets.cells import Cell, calculated, merged

FIELDS = "sheets(properties.title,merges,data(startRow,startColumn,rowData.values(userEnteredValue,effectiveValue)))"
"""What a `Spreadsheet` is made of."""


class _Said(BaseModel):
    """By Google, which leaves out what is zero or empty. Rows and columns count from 0."""

    model_config = ConfigDict(alias_generator=to_camel)


class _Merge(_Said):
    """Cells that are shown as one, which is the first of them."""

    start_row_index: int = 0
    start_column_index: int = 0
    end_row_index: int
    end_column_index: int

    def hides(self, row: int, column: int) -> bool:
        first = (self.start_row_index, self.start_column_index)
        return first != (row, column) and (
            self.start_row_index <= row < self.end_row_index
            and self.start_column_index <= column < self.end_column_index
        )


class _Content(_Said):
    """Of one cell: `{"numberValue": 1.5}`, and if somebody has entered a formula, `{"formulaValue": "=…"}`."""

    user_entered_value: dict[str, JsonValue] | None = None
    effective_value: dict[str, JsonValue] | None = None

    @property
    def is_calculated(self) -> bool:
        """By a formula, which may stand in another cell: then nobody has entered what is there."""
        if self.user_entered_value is None:
            return self.effective_value is not None
        return "formulaValue" in self.user_entered_value


class _Row(_Said):
    values: list[_Content] = []


class _Part(_Said):
    """A range that was asked for."""

    start_row: int = 0
    start_column: int = 0
    row_data: list[_Row] = []

    def calculated(self) -> set[tuple[int, int]]:
        return {
            (self.start_row + down, self.start_column + right)
            for down, row in enumerate(self.row_data)
            for right, content in enumerate(row.values)
            if content.is_calculated
        }


class _Properties(_Said):
    title: str


class Sheet(_Said):
    """Parts of one sheet."""

    properties: _Properties
    merges: list[_Merge] = []
    data: list[_Part] = []

    def expect_writable(self, cells: Sequence[Cell]) -> None:
        """Return if none of these cells is merged with others or has a formula.

        Raises:
            Rejected: the first that is or has.
        """
        formulas = set[tuple[int, int]]().union(*(part.calculated() for part in self.data))
        for cell in cells:
            at = (cell.row - 1, cell.column - 1)
            if any(merge.hides(*at) for merge in self.merges):
                raise merged(rowcol_to_a1(cell.row, cell.column), self.properties.title)
            if at in formulas:
                raise calculated(rowcol_to_a1(cell.row, cell.column), self.properties.title)


class Spreadsheet(_Said):
    """The sheet that was asked for, if it has any of the cells that were."""

    sheets: list[Sheet]


def columns_of(cells: Sequence[Cell]) -> list[str]:
    """The ranges in which the cells are, one for each column."""
    rows: dict[int, list[int]] = {}
    for cell in cells:
        rows.setdefault(cell.column, []).append(cell.row)
    return [f"{rowcol_to_a1(min(at), column)}:{rowcol_to_a1(max(at), column)}" for column, at in rows.items()]
