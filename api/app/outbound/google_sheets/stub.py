"""Google's Sheets API, played: every spreadsheet is a roadmap, and remembers what was written as long as it is served.

`demo` has 24 items; `demo-10000`, and so on, as many as that. One in a thousand has no effort, which is wrong.
What is named `calculated…` has a column RICE in which L3 is merged with L2, L4 has a formula, and L5 one that fills L6
too; `missing…` is not there, and `private…` is not shared.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ITEMS = 24
WRONG_EVERY, FIRST_WRONG = 1000, 13
HEADER = [
    "Key", "Title", "Description", "Reach", "Impact", "Confidence", "Effort",
    "Value", "Time criticality", "Risk reduction", "Job size",
]  # fmt: skip
DOES = ("Show", "Import", "Export", "Explain", "Speed up", "Share", "Undo", "Schedule")
WHAT = ("the roadmap", "invoices", "the search", "team invitations", "reports", "the first login", "old projects")

CALCULATED = "calculated"
FORMULAS = {(4, 12): "=D4*E4*F4/G4", (5, 12): "=ARRAYFORMULA(D5:D6*E5:E6)"}
FILLED = (6, 12)
MERGE = {"sheetId": 0, "startRowIndex": 1, "endRowIndex": 3, "startColumnIndex": 11, "endColumnIndex": 12}

Values = list[list[Any]]

_written: defaultdict[str, dict[tuple[int, int], Any]] = defaultdict(dict)


async def get_values(request: Request) -> Response:
    sheet: str = request.path_params["sheet"]
    if refusal := _refusal(sheet):
        return refusal
    values = _values(sheet)
    return JSONResponse({"range": f"Roadmap!A1:ZZ{len(values)}", "majorDimension": "ROWS", "values": values})


async def get_grid(request: Request) -> Response:
    sheet: str = request.path_params["sheet"]
    if refusal := _refusal(sheet):
        return refusal
    told: dict[str, Any] = {"properties": {"title": "Roadmap"}}
    if sheet.startswith(CALCULATED):
        told["merges"] = [MERGE]
    told["data"] = [_part(sheet, *each.split(":")) for each in request.query_params.getlist("ranges")]
    return JSONResponse({"sheets": [told]})


async def batch_update(request: Request) -> Response:
    sheet: str = request.path_params["sheet"]
    if refusal := _refusal(sheet):
        return refusal
    ranges = (await request.json())["data"]
    for each in ranges:
        row, column = _place(each["range"])
        for down, cells in enumerate(each["values"]):
            for right, value in enumerate(cells):
                _written[sheet][row + down, column + right] = value
    return JSONResponse(
        {"spreadsheetId": sheet, "totalUpdatedRows": len({_place(each["range"])[0] for each in ranges})}
    )


def _values(sheet: str) -> Values:
    asked = re.match(r"demo-(\d{1,6})\b", sheet)
    rows: Values = [list(HEADER), *(_item(number) for number in range(1, 1 + (int(asked[1]) if asked else ITEMS)))]
    if sheet.startswith(CALCULATED):
        rows[0].append("RICE")
        for row, _ in (*FORMULAS, FILLED):
            rows[row - 1].append(1.0)
    for (row, column), value in sorted(_written[sheet].items()):
        rows += [[] for _ in range(row - len(rows))]
        rows[row - 1] += [""] * (column - len(rows[row - 1]))
        rows[row - 1][column - 1] = value
    return rows


def _item(number: int) -> list[Any]:
    dice = random.Random(number)
    is_wrong = number % WRONG_EVERY == FIRST_WRONG
    title = f"{dice.choice(DOES)} {dice.choice(WHAT)} [stub {number}]"
    return [
        f"RM-{number}",
        title,
        f"So that it is asked for less often. {title}",
        dice.randint(1, 50) * 100,
        dice.choice((0.25, 0.5, 1, 2, 3)),
        dice.choice((0.5, 0.8, 1)),
        0 if is_wrong else dice.choice((0.5, 1, 2, 3, 5, 8)),
        *(dice.choice((1, 2, 3, 5, 8, 13)) for _ in range(4)),
    ]


def _part(sheet: str, first: str, last: str) -> dict[str, Any]:
    (top, left), (bottom, right) = _place(first), _place(last)
    rows = _values(sheet)[top - 1 : bottom]
    return {
        "startRow": top - 1,
        "startColumn": left - 1,
        "rowData": [
            {"values": [_content(sheet, (row, left + n), value) for n, value in enumerate(values[left - 1 : right])]}
            for row, values in enumerate(rows, start=top)
        ],
    }


def _content(sheet: str, at: tuple[int, int], value: Any) -> dict[str, Any]:
    if value == "":
        return {}
    shown = {"stringValue" if isinstance(value, str) else "numberValue": value}
    if not sheet.startswith(CALCULATED) or at in _written[sheet]:
        return {"userEnteredValue": shown, "effectiveValue": shown}
    if at == FILLED:
        return {"effectiveValue": shown}
    return {"userEnteredValue": {"formulaValue": FORMULAS[at]} if at in FORMULAS else shown, "effectiveValue": shown}


def _place(a1: str) -> tuple[int, int]:
    letters, digits = re.fullmatch(r"([A-Z]+)(\d+)(?::.*)?", a1).groups()  # pyright: ignore[reportOptionalMemberAccess]
    column = 0
    for letter in letters:
        column = column * 26 + ord(letter) - ord("A") + 1
    return int(digits), column


def _refusal(sheet: str) -> Response | None:
    if sheet.startswith("missing"):
        return _error(404, "NOT_FOUND", "Requested entity was not found.")
    if sheet.startswith("private"):
        return _error(403, "PERMISSION_DENIED", "The caller does not have permission")
    return None


def _error(code: int, status: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message, "status": status}}, code)


stub = Starlette(
    routes=[
        Route("/v4/spreadsheets/{sheet}", get_grid),
        Route("/v4/spreadsheets/{sheet}/values/{range}", get_values),
        Route("/v4/spreadsheets/{sheet}/values:batchUpdate", batch_update, methods=["POST"]),
    ]
)
