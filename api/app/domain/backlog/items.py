"""What the rows of a sheet say: items, and what is wrong with those that are none. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from app.errors import Rejected

MAX_KEY = 100


def _number(cell: object) -> object:
    """Empty: not known. A percentage is a part of 1."""
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    try:
        return None if not text else float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return text


Number = Annotated[Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None, BeforeValidator(_number)]
Divisor = Annotated[Annotated[float, Field(ge=0.01, le=1e9, allow_inf_nan=False)] | None, BeforeValidator(_number)]
Part = Annotated[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None, BeforeValidator(_number)]


class BacklogItem(BaseModel):
    """One row of the backlog. A number that is not known is `None`."""

    key: str = Field(min_length=1, max_length=MAX_KEY)
    title: str = Field(min_length=1, max_length=500)
    description: str = Field(default="", max_length=5000)
    reach: Number = None
    impact: Number = None
    confidence: Part = None
    effort: Divisor = None
    value: Number = None
    time_criticality: Number = None
    risk_reduction: Number = None
    job_size: Divisor = None


class InvalidRow(BaseModel):
    """A row that is no item, and what to do about it."""

    row: int
    """As the sheet counts, from 1."""
    column: str
    problem: str


class Reading(BaseModel):
    """What a sheet says."""

    items: list[BacklogItem]
    invalid: list[InvalidRow]
    """The first fault of each such row."""
    keys: list[str]
    """Of all rows, the invalid ones too: what is wrong is not gone."""


def columns_of(rows: Sequence[Sequence[str]]) -> dict[str, int]:
    """Where which column is, counted from 0, by the names of its header: `Job size` is `job_size`.

    Raises:
        Rejected: it is no backlog, or has a column twice.
    """
    names = ["_".join(cell.lower().replace("_", " ").split()) for cell in (rows[0] if rows else [])]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise Rejected(f"The sheet has two columns {twice!r}. Rename one in its first row.")
    if missing := [name for name in ("key", "title") if name not in names]:
        raise Rejected(f"The sheet has no column {missing[0]!r}. Name one so in its first row.")
    return {name: index for index, name in enumerate(names) if name}


def cell(row: Sequence[str], index: int) -> str:
    """Empty cells at the end of a row are not there."""
    return row[index] if index < len(row) else ""


def read_items(rows: Sequence[Sequence[str]]) -> Reading:
    """The items of a sheet, whose first row names its columns. Columns that are not an item's are not looked at.

    Raises:
        Rejected: it is no backlog.
    """
    columns = columns_of(rows)
    read = Reading(items=[], invalid=[], keys=[])
    first_rows: dict[str, int] = {}
    for number, values in _filled(rows, columns):
        key = values["key"]
        if key in first_rows:
            problem = f"{_quoted(key)} is the key of row {first_rows[key]} too. Give each item its own."
            read.invalid.append(InvalidRow(row=number, column="key", problem=problem))
            continue
        if key:
            first_rows[key] = number
        try:
            read.items.append(BacklogItem.model_validate(values))
        except ValidationError as error:
            read.invalid.append(_invalid(number, error))
    return read.model_copy(update={"keys": list(first_rows)})


def _filled(rows: Sequence[Sequence[str]], columns: dict[str, int]) -> Iterator[tuple[int, dict[str, str]]]:
    known = {name: columns[name] for name in BacklogItem.model_fields if name in columns}
    for number, row in enumerate(rows[1:], start=2):
        values = {name: cell(row, index).strip() for name, index in known.items()}
        if any(values.values()):
            yield number, values


def _invalid(number: int, error: ValidationError) -> InvalidRow:
    fault = error.errors()[0]
    column = str(fault["loc"][0])
    found = _quoted(fault["input"]) if fault["input"] != "" else "nothing"
    return InvalidRow(row=number, column=column, problem=f"{_wish(column, fault)}, not {found}.")


def _wish(column: str, fault: Any) -> str:
    match fault["type"]:
        case "string_too_short":
            return "Give it a text"
        case "string_too_long":
            return f"Give it at most {fault['ctx']['max_length']} characters"
        case _ if column == "confidence":
            return "Give it a number from 0 to 1, or a percentage"
        case _ if column in ("effort", "job_size"):
            return "Give it a number from 0.01 to 1000000000, or leave it empty"
        case _:
            return "Give it a number from 0 to 1000000000, or leave it empty"


def _quoted(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return repr(text if len(text) <= MAX_KEY else f"{text[:MAX_KEY]}…")
