"""What the rows of a sheet say, and what is told about those that are wrong."""

from __future__ import annotations

import pytest

from app.domain.backlog.items import BacklogItem, InvalidRow, read_items
from app.errors import Rejected

HEADER = ["Key", "Title", "Reach", "Impact", "Confidence", "Effort", "Job size", "Whatever"]


def test_a_row_is_an_item_whatever_else_the_sheet_has() -> None:
    reading = read_items([HEADER, ["A-1", " Undo ", "1200", "0.5", "80%", "3", "", "?"], ["A-2", "Redo"], ["", ""], []])
    assert reading.items == [
        BacklogItem(key="A-1", title="Undo", reach=1200, impact=0.5, confidence=0.8, effort=3),
        BacklogItem(key="A-2", title="Redo"),
    ]
    assert (reading.invalid, reading.keys) == ([], ["A-1", "A-2"])


def test_columns_are_found_by_their_names_however_written() -> None:
    reading = read_items([["TITLE", "job_size", " Time  Criticality ", "", "key"], ["Undo", "2", "8", "", "A-1"]])
    assert reading.items == [BacklogItem(key="A-1", title="Undo", job_size=2, time_criticality=8)]


@pytest.mark.parametrize(
    ("row", "column", "problem"),
    [
        (["", "Undo"], "key", "Give it a text, not nothing."),
        (["A-1"], "title", "Give it a text, not nothing."),
        (["A-1", "x" * 501], "title", f"Give it at most 500 characters, not '{'x' * 100}…'."),
        (["A-1", "Undo", "many"], "reach", "Give it a number from 0 to 1000000000, or leave it empty, not 'many'."),
        (["A-1", "Undo", "-1"], "reach", "Give it a number from 0 to 1000000000, or leave it empty, not '-1'."),
        (["A-1", "Undo", "nan"], "reach", "Give it a number from 0 to 1000000000, or leave it empty, not 'nan'."),
        (["A-1", "Undo", "", "", "80"], "confidence", "Give it a number from 0 to 1, or a percentage, not '80'."),
        (["A-1", "Undo", "", "", "", "0"], "effort",
         "Give it a number from 0.01 to 1000000000, or leave it empty, not '0'."),
    ],
    ids=("no-key", "no-title", "long", "word", "negative", "nan", "confidence", "effort"),
)  # fmt: skip
def test_a_wrong_row_is_told_with_its_number_its_column_and_what_to_do(
    row: list[str], column: str, problem: str
) -> None:
    reading = read_items([HEADER, ["A-0", "Fine"], row])
    assert [item.key for item in reading.items] == ["A-0"]
    assert reading.invalid == [InvalidRow(row=3, column=column, problem=problem)]


def test_the_first_row_of_a_key_has_it() -> None:
    reading = read_items([HEADER, ["A-1", "Undo"], ["A-1", "Redo"]])
    assert [item.title for item in reading.items] == ["Undo"]
    problem = "'A-1' is the key of row 2 too. Give each item its own."
    assert reading.invalid == [InvalidRow(row=3, column="key", problem=problem)]


def test_a_wrong_row_is_not_gone() -> None:
    assert read_items([HEADER, ["A-1", ""]]).keys == ["A-1"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no column 'key'"),
        ([["Key", "Reach"]], "no column 'title'"),
        ([["Key", "Title", "KEY"]], "two columns 'key'"),
    ],
)
def test_a_sheet_that_is_no_backlog_is_rejected(rows: list[list[str]], message: str) -> None:
    with pytest.raises(Rejected, match=message):
        read_items(rows)
