"""Sheets: Google's, or a CSV or XLSX file in a sheet's place."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.config import Settings
from app.errors import Rejected
from app.outbound.google_sheets import files
from app.outbound.google_sheets.cells import Cell, in_writes
from app.outbound.neighbour import Neighbour
from app.outbound.stubs import Stubs

if TYPE_CHECKING:
    from app.outbound.google_sheets.wire import Account

MAX_SECONDS = 60.0
CALLS_PER_MINUTE = 60.0
"""Google's quota for one user."""
DEMO = "demo"
"""The stub's sheet for who has none."""

_ID_IN_URL = re.compile(r"/spreadsheets/d/([\w-]+)")


class SheetsClient:
    """Reads and writes sheets. Shared by the runs of a worker.

    A `sheet` is a spreadsheet's id or URL, whose first sheet it is; or the path of a file; or `None`, the stub's demo.
    """

    def __init__(self, settings: Settings, stubs: Stubs, *, timeout: float = MAX_SECONDS) -> None:
        """`timeout` is in seconds, for one request."""
        self._settings = settings
        self._stubs = stubs
        self._timeout = timeout
        self._is_played = settings.stubs(settings.google_service_account)
        self._neighbour = Neighbour("google_sheets", per_minute=None if self._is_played else CALLS_PER_MINUTE)

    async def read(self, sheet: str | None) -> list[list[str]]:
        """The rows of a sheet as texts, numbers with a point. Empty cells at the end of a row may be left out.

        Raises:
            Unavailable: the network, the time, a status of 5xx, or an answer that cannot be read.
            RateLimited: 429, for as long as the answer says, or a minute.
            Rejected: there is no such sheet or file, it may not be read, or a key is missing or wrong.
        """
        if path := _file(sheet):
            return await asyncio.to_thread(files.read_rows, path)
        async with self._neighbour.call():
            return await asyncio.to_thread(self._read, self._id(sheet))

    async def expect_writable(self, sheet: str | None, cells: Sequence[Cell]) -> None:
        """Return if each of these cells can hold a value of its own, and has no formula that would be lost.

        Raises:
            Unavailable, RateLimited: as `read`.
            Rejected: as `read`; or a cell is merged with others or has a formula: the message names it.
        """
        if path := _file(sheet):
            await asyncio.to_thread(files.expect_writable, path, cells)
        elif cells:
            async with self._neighbour.call():
                await asyncio.to_thread(self._expect_writable, self._id(sheet), cells)

    async def write(self, sheet: str | None, cells: Sequence[Cell]) -> None:
        """Write cells, those of up to 500 rows by one request. To write the same again changes nothing.

        Google writes over formulas, too: ask `expect_writable` before.

        Raises:
            Unavailable, RateLimited, Rejected: as `read`.
        """
        if path := _file(sheet):
            await asyncio.to_thread(files.write_cells, path, cells)
            return
        for together in in_writes(cells):
            async with self._neighbour.call():
                await asyncio.to_thread(self._write, self._id(sheet), together)

    def _read(self, sheet_id: str) -> list[list[str]]:
        return self._account.read_rows(sheet_id)

    def _expect_writable(self, sheet_id: str, cells: Sequence[Cell]) -> None:
        self._account.expect_writable(sheet_id, cells)

    def _write(self, sheet_id: str, cells: Sequence[Cell]) -> None:
        self._account.write_cells(sheet_id, cells)

    @functools.cached_property
    def _account(self) -> Account:
        # Not at the top: it takes half a second to import, and not every worker looks into sheets. Asked for in a
        # thread only, so that the other runs go on meanwhile.
        from app.outbound.google_sheets.wire import GOOGLE, Account, service_account, stub_token

        if self._is_played:
            return Account(stub_token(), base_url=self._stubs.url("google_sheets"), timeout=self._timeout)
        key = self._settings.google_service_account
        if key is None:
            raise Rejected(
                "Google Sheets needs a key. Set GOOGLE_SERVICE_ACCOUNT for the workers, or a file as BACKLOG_SHEET."
            )
        return Account(service_account(key.get_secret_value()), base_url=GOOGLE, timeout=self._timeout)

    def _id(self, sheet: str | None) -> str:
        if sheet is None and self._is_played:
            return DEMO
        if sheet is None:
            raise Rejected("No sheet is named. Set BACKLOG_SHEET to the id or the URL of a spreadsheet, or to a file.")
        in_url = _ID_IN_URL.search(sheet)
        return in_url[1] if in_url else sheet


def _file(sheet: str | None) -> Path | None:
    return files.as_file(sheet) if sheet else None
