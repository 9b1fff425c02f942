"""Read CSV and workbooks: what is in each column. Work for a child process: what is read here may be hostile."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel

from app.domain.files.documents import UNSTORABLE
from app.errors import Rejected

MAX_COLUMNS = 500
MAX_ROWS = 1_000_000
MAX_UNPACKED_BYTES = 200 * 1024 * 1024
MAX_DISTINCT = 1_000
EXAMPLES = 3
LONGEST_VALUE = 100

Kind = Literal["empty", "integer", "number", "date", "text"]

_WRITTEN: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("integer", re.compile(r"[+-]?\d{1,18}")),
    ("number", re.compile(r"[+-]?\d{0,18}\.\d{1,30}([eE][+-]?\d{1,3})?")),
    ("date", re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")),
)
"""How values of a kind look where everything is text."""


class Column(BaseModel):
    """What is in one column."""

    name: str
    kind: Kind
    """The narrowest that all its values are."""
    filled: int
    """How many rows have a value."""
    distinct: int
    """How many different values; 1,000 also stands for more."""
    examples: list[str]
    """The first three different ones, each up to 100 characters."""


class Table(BaseModel):
    """The columns of a table; of a workbook, of its first sheet."""

    rows: int
    """Without the first, which names the columns."""
    columns: list[Column]


def read_csv(data: bytes) -> Table:
    """A table in UTF-8, its values apart by whichever of `,` `;` tab and `|` is most in its first line."""
    text = data.decode("utf-8-sig")
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t|", key=first_line.count)
    return _profile(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def read_workbook(data: bytes) -> Table:
    """The first sheet of an XLSX file."""
    from openpyxl import load_workbook  # half a second that only those pay who read one

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MAX_UNPACKED_BYTES:
        raise Rejected(f"The workbook has {unpacked} bytes when unpacked. Send one of at most {MAX_UNPACKED_BYTES}.")
    workbook = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    sheet: Any = workbook.worksheets[0]
    # What the file says of its own size need not be true.
    sheet.reset_dimensions()
    return _profile(sheet.iter_rows(values_only=True))


@dataclass
class _Seen:
    """What was seen in a column so far."""

    name: str
    filled: int = 0
    kinds: set[Kind] = field(default_factory=set)
    # In the order of their first appearance.
    distinct: dict[str, None] = field(default_factory=dict)

    def see(self, value: Any) -> None:
        if value is None or value == "":
            return
        self.filled += 1
        self.kinds.add(_kind(value))
        if len(self.distinct) < MAX_DISTINCT:
            self.distinct[_shown(value)] = None

    def told(self) -> Column:
        return Column(
            name=self.name,
            kind=_narrowest(self.kinds),
            filled=self.filled,
            distinct=len(self.distinct),
            examples=list(self.distinct)[:EXAMPLES],
        )


def _profile(lines: Iterable[Iterable[Any]]) -> Table:
    rows = filter(_has_values, map(list, lines))
    columns = [_Seen(_shown(value) or _unnamed(place)) for place, value in enumerate(_narrow(next(rows, [])))]
    count = 0
    for row in rows:
        count += 1
        if count > MAX_ROWS:
            raise Rejected(f"The table has more than {MAX_ROWS:,} rows. Send a part of it.")
        columns += [_Seen(_unnamed(place)) for place in range(len(columns), len(_narrow(row)))]
        for column, value in zip(columns, row, strict=False):
            column.see(value)
    return Table(rows=count, columns=[column.told() for column in columns])


def _unnamed(place: int) -> str:
    return f"column {place + 1}"


def _has_values(row: list[Any]) -> bool:
    return any(value not in (None, "") for value in row)


def _narrow(row: list[Any]) -> list[Any]:
    if len(row) > MAX_COLUMNS:
        raise Rejected(f"The table has more than {MAX_COLUMNS} columns. Send a part of it.")
    return row


def _kind(value: Any) -> Kind:
    match value:
        case bool():
            return "text"
        case int():
            return "integer"
        case float():
            return "number"
        case date():
            return "date"
        case _:
            return _kind_of_text(str(value).strip())


def _kind_of_text(text: str) -> Kind:
    for kind, pattern in _WRITTEN:
        if pattern.fullmatch(text):
            return kind
    return "text"


def _narrowest(kinds: set[Kind]) -> Kind:
    if not kinds:
        return "empty"
    if len(kinds) == 1:
        return next(iter(kinds))
    return "number" if kinds == {"integer", "number"} else "text"


def _shown(value: Any) -> str:
    return UNSTORABLE.sub("", "" if value is None else str(value))[:LONGEST_VALUE]
