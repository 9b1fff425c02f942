"""Google's Sheets API by gspread, whose statuses become our errors. Blocks: for a thread.

A file of its own, because gspread and Google's authentication take half a second to import.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator, Sequence
from itertools import groupby
from typing import Any

from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError, TransportError
from google.oauth2.credentials import Credentials as Token
from google.oauth2.service_account import Credentials as ServiceAccount
from gspread.http_client import HTTPClient
from gspread.utils import rowcol_to_a1
from pydantic import BaseModel, JsonValue, ValidationError
from requests import Response
from requests.exceptions import JSONDecodeError, RequestException, Timeout
from typing_extensions import override

from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.google_sheets.cells import Cell, as_text
from app.outbound.google_sheets.grid import FIELDS, Spreadsheet, columns_of
from app.outbound.patience import retry_after

GOOGLE = "https://sheets.googleapis.com"
SCOPES = ("https://www.googleapis.com/auth/spreadsheets",)
# Without the name of a sheet, it is the first one.
ALL_COLUMNS = "A:ZZ"


class _Values(BaseModel):
    values: list[list[JsonValue]] = []


class _Http(HTTPClient):
    """gspread's, at another address if need be. Its own error cannot be made of an answer that is not Google's."""

    def __init__(self, credentials: Credentials, *, base_url: str, timeout: float) -> None:
        super().__init__(credentials)
        self._base_url = base_url
        self._seconds = timeout

    @override
    def request(self, method: str, endpoint: str, *args: Any, **options: Any) -> Response:
        assert not args, "gspread names what it asks with, and its order is not that of requests"
        url = endpoint.replace(GOOGLE, self._base_url, 1)
        # The hint is read off the default, which is a whole number.
        response = self.session.request(method, url, timeout=self._seconds, **options)  # pyright: ignore[reportArgumentType]
        _expect_success(response)
        return response


class Account:
    """The Sheets API, as one who may use it."""

    def __init__(self, credentials: Credentials, *, base_url: str, timeout: float) -> None:
        """`timeout` is in seconds, for one request."""
        self._credentials = credentials
        self._base_url = base_url
        self._timeout = timeout

    def read_rows(self, sheet_id: str) -> list[list[str]]:
        """The rows of a spreadsheet's first sheet."""
        with self._http() as http:
            # Not as they are shown: that depends on the country of the sheet.
            answer = http.values_get(sheet_id, ALL_COLUMNS, params={"valueRenderOption": "UNFORMATTED_VALUE"})
            return [[as_text(cell) for cell in row] for row in _Values.model_validate(answer).values]

    def expect_writable(self, sheet_id: str, cells: Sequence[Cell]) -> None:
        """Return if none of these cells of a spreadsheet's first sheet is merged with others or has a formula."""
        with self._http() as http:
            asked: dict[str, Any] = {"ranges": columns_of(cells), "fields": FIELDS}
            answer = Spreadsheet.model_validate(http.fetch_sheet_metadata(sheet_id, asked))
        for sheet in answer.sheets:
            sheet.expect_writable(cells)

    def write_cells(self, sheet_id: str, cells: Sequence[Cell]) -> None:
        """Write cells of a spreadsheet's first sheet, in one request."""
        with self._http() as http:
            http.values_batch_update(sheet_id, {"valueInputOption": "RAW", "data": _ranges(cells)})

    @contextlib.contextmanager
    def _http(self) -> Generator[HTTPClient]:
        # One for each call: its session is not made for several threads.
        http = _Http(self._credentials, base_url=self._base_url, timeout=self._timeout)
        with _faults_as_errors(), contextlib.closing(http.session):
            yield http


def service_account(key: str) -> Credentials:
    """What Google knows a service account by; `key` is the JSON that it gave.

    Raises:
        Rejected: the key is none.
    """
    try:
        return ServiceAccount.from_service_account_info(json.loads(key), scopes=SCOPES)
    except ValueError:
        # Not chained: the reason may quote the key.
        raise Rejected(
            "GOOGLE_SERVICE_ACCOUNT is not the key of a service account. Set the JSON that Google Cloud gives for one."
        ) from None


def stub_token() -> Credentials:
    """What a stub is shown. It needs no refresh, and opens nothing."""
    return Token(token="stub")  # noqa: S106 - no secret


def _ranges(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Cells side by side are one range."""
    rows = groupby(enumerate(cells), key=lambda at: (at[1].row, at[1].column - at[0]))
    runs = ([cell for _, cell in row] for _, row in rows)
    return [
        {"range": rowcol_to_a1(run[0].row, run[0].column), "values": [[cell.value for cell in run]]} for run in runs
    ]


@contextlib.contextmanager
def _faults_as_errors() -> Generator[None]:
    try:
        yield
    except Timeout as late:
        raise Unavailable("Google Sheets took too long to answer. Try again later.") from late
    except (JSONDecodeError, ValidationError) as unread:
        raise Unavailable("Google Sheets gave an answer that cannot be read. Try again later.") from unread
    except RefreshError as refused:
        if refused.retryable:
            raise Unavailable("Google cannot give access to Sheets now. Try again later.") from refused
        raise Rejected("Google does not know this service account. Check GOOGLE_SERVICE_ACCOUNT.") from refused
    except (RequestException, TransportError) as fault:
        raise Unavailable("Google Sheets cannot be reached. Try again later.") from fault


def _expect_success(response: Response) -> None:
    status = response.status_code
    if response.ok:
        return
    answer = f"Google Sheets answered {status}."
    if status == 429:
        wait = retry_after(response.headers.get("Retry-After", ""), time.time())
        # Google's quota is by the minute, and it seldom says how long to wait.
        raise RateLimited(f"{answer} Too much was asked for at once.", retry_after=60 if wait is None else wait)
    if status == 408 or status >= 500:
        raise Unavailable(f"{answer} Try again later.")
    if status == 404:
        raise Rejected(f"{answer} There is no such spreadsheet: set BACKLOG_SHEET to its id or its URL.")
    if status in (401, 403):
        raise Rejected(
            f"{answer} Share the spreadsheet with the e-mail address of GOOGLE_SERVICE_ACCOUNT, as an editor."
        )
    raise Rejected(f"{answer} Check BACKLOG_SHEET, and that the sheet has room for two more columns.")
