"""The client of sheets, with a stub on the wire: what it reads and writes, and what becomes of each trouble."""

from __future__ import annotations

import json

import httpx2
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.config import Settings
from app.errors import ActionError, RateLimited, Rejected, Unavailable
from app.outbound.google_sheets.cells import Cell
from app.outbound.google_sheets.client import SheetsClient
from app.outbound.google_sheets.wire import GOOGLE, Account, stub_token
from app.outbound.stubs import RETRY_AFTER_SECONDS, Stubs

CELLS = [Cell(2, 12, 1.5), Cell(2, 13, "x"), Cell(2, 15, 7), Cell(3, 12, "")]


@pytest.fixture
def sheets(keyless: Settings, stubs: Stubs) -> SheetsClient:
    return SheetsClient(keyless, stubs)


async def calls(stubs: Stubs) -> list[str]:
    async with httpx2.AsyncClient() as client:
        told = (await client.get(stubs.url("google_sheets").removesuffix("google_sheets") + "calls")).json()
    return [call["path"] for call in told]


async def test_who_names_no_sheet_reads_the_demo(sheets: SheetsClient) -> None:
    header, first, *_ = rows = await sheets.read(None)
    assert len(rows) == 25
    assert dict(zip(header, first, strict=True))["Key"] == "RM-1"
    assert all(type(cell) is str for row in rows for cell in row)


async def test_a_sheet_is_found_by_its_url(sheets: SheetsClient, stubs: Stubs) -> None:
    assert len(await sheets.read("https://docs.google.com/spreadsheets/d/demo-3/edit#gid=0")) == 4
    assert await calls(stubs) == ["/v4/spreadsheets/demo-3/values/A:ZZ"]


async def test_what_is_written_is_read_again(sheets: SheetsClient) -> None:
    await sheets.write("demo-2-written", CELLS)
    _, first, second = await sheets.read("demo-2-written")
    assert first[11:] == ["1.5", "x", "", "7"]
    assert second[11:] == [""]


async def test_500_rows_are_written_by_one_request(sheets: SheetsClient, stubs: Stubs) -> None:
    await sheets.write("demo-1000", [Cell(row, column, row) for row in range(1, 1002) for column in (12, 13)])
    assert await calls(stubs) == 3 * ["/v4/spreadsheets/demo-1000/values:batchUpdate"]
    assert [row[11:] for row in (await sheets.read("demo-1000"))[1:]] == [[f"{n}", f"{n}"] for n in range(2, 1002)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (3, r"Cell L3 of the sheet 'Roadmap' is merged with others.* Unmerge them"),
        (4, r"Cell L4 of the sheet 'Roadmap' has a formula.* another column"),
        (5, r"Cell L5 of the sheet 'Roadmap' has a formula"),
        (6, r"Cell L6 of the sheet 'Roadmap' has a formula"),
    ],
    ids=["merged", "formula", "array formula", "filled by an array formula"],
)
async def test_a_cell_that_can_hold_no_value_is_named(sheets: SheetsClient, row: int, message: str) -> None:
    await sheets.expect_writable("calculated", [Cell(1, 12, "RICE"), Cell(2, 12, 1.5), Cell(7, 12, 1), Cell(7, 1, "x")])
    with pytest.raises(Rejected, match=message):
        await sheets.expect_writable("calculated", [Cell(1, 13, "WSJF"), Cell(2, 12, 1.5), Cell(row, 12, 2.5)])


async def test_cells_are_looked_at_by_one_request_however_many_there_are(sheets: SheetsClient, stubs: Stubs) -> None:
    await sheets.expect_writable("demo-1000", [Cell(row, column, 1) for row in range(1, 1002) for column in (12, 3)])
    assert await calls(stubs) == ["/v4/spreadsheets/demo-1000"]


async def test_nothing_is_asked_to_write_nothing(sheets: SheetsClient, stubs: Stubs) -> None:
    await sheets.expect_writable("demo", [])
    await sheets.write("demo", [])
    assert await calls(stubs) == []


@pytest.mark.parametrize(
    ("sheet", "error", "message"),
    [
        ("[stub:429]", RateLimited, "Google Sheets answered 429"),
        ("[stub:500]", Unavailable, "Google Sheets answered 500"),
        ("[stub:malformed]", Unavailable, "cannot be read"),
        ("[stub:slow]", Unavailable, "took too long"),
        ("missing", Rejected, "set BACKLOG_SHEET to its id or its URL"),
        ("private", Rejected, "Share the spreadsheet with the e-mail address of GOOGLE_SERVICE_ACCOUNT"),
    ],
)
@pytest.mark.parametrize("does", ["read", "expect_writable", "write"])
async def test_each_trouble_is_an_error_that_says_what_to_do(
    keyless: Settings, stubs: Stubs, sheet: str, error: type[ActionError], message: str, does: str
) -> None:
    sheets = SheetsClient(keyless, stubs, timeout=0.5 if "slow" in sheet else 60)
    with pytest.raises(error, match=message) as raised:
        await getattr(sheets, does)(sheet, *([] if does == "read" else [CELLS]))
    assert type(raised.value) is error
    if isinstance(raised.value, RateLimited):
        assert raised.value.retry_after == RETRY_AFTER_SECONDS


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (JSONResponse({"error": "?"}, 429), RateLimited, "Too much"),
        (JSONResponse({"error": "?"}, 400), Rejected, "room for two more columns"),
        (JSONResponse({"values": "?"}), Unavailable, "cannot be read"),
        (JSONResponse([1]), Unavailable, "cannot be read"),
        (JSONResponse({"values": [[{}.get("nothing"), True, "\x00 a "]]}), None, ""),
    ],
    ids=("no-time-to-wait", "bad-request", "no-rows", "no-object", "odd-cells"),
)
async def test_each_answer_is_rows_or_an_error(
    keyless: Settings, answer: Response, error: type[ActionError] | None, message: str
) -> None:
    async def give(_: Request) -> Response:
        return answer

    stubs = Stubs({"google_sheets": Starlette(routes=[Route("/{path:path}", give)])})
    sheets = SheetsClient(keyless, stubs)
    if error is None:
        assert await sheets.read("any") == [["", "True", "a"]]
    else:
        with pytest.raises(error, match=message) as raised:
            await sheets.read("any")
        assert not isinstance(raised.value, RateLimited) or raised.value.retry_after == 60
    await stubs.aclose()


async def test_a_service_that_is_not_there_is_unavailable(keyless: Settings) -> None:
    nobody = SheetsClient(keyless, Stubs({}, served_at="http://127.0.0.1:1"))
    with pytest.raises(Unavailable, match="cannot be reached"):
        await nobody.read("demo")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "Set GOOGLE_SERVICE_ACCOUNT for the workers, or a file as BACKLOG_SHEET"),
        ({"google_service_account": SecretStr('{"private_key": "?"}')}, "not the key of a service account"),
    ],
    ids=("no-key", "no-such-key"),
)
async def test_without_a_key_and_without_a_stub_nothing_is_asked(
    keyless: Settings, stubs: Stubs, changes: dict[str, object], message: str
) -> None:
    live = SheetsClient(keyless.model_copy(update={"stub_generation": False, **changes}), stubs)
    with pytest.raises(Rejected, match=message):
        await live.read("demo")
    with pytest.raises(Rejected, match="Set BACKLOG_SHEET"):
        await live.read(None)
    assert await calls(stubs) == []


async def test_the_key_is_not_shown_to_a_stub(keyless: Settings, stubs: Stubs) -> None:
    """With a key that is none: it would be refused if it were looked at."""
    played = {"stub_generation": True, "google_service_account": SecretStr(json.dumps({"private_key": "?"}))}
    assert await SheetsClient(keyless.model_copy(update=played), stubs).read("demo-1")


def test_live_requests_go_to_google() -> None:
    assert Account(stub_token(), base_url=GOOGLE, timeout=1)._base_url == "https://sheets.googleapis.com"
