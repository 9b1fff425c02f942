"""What each service of other people promises us: held against the service itself, and against what plays it."""

from __future__ import annotations

import contextlib
import io
import uuid
import wave
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel
from tests.support.buckets import BUCKET, BUNNY_KEY, bunny, s3_server
from tests.support.mailbox import mailbox

from app.config import Settings
from app.errors import Rejected
from app.outbound.clients import Clients
from app.outbound.google_sheets.cells import Cell
from app.outbound.google_sheets.files import as_file
from app.outbound.stubs import Stubs


class Capital(BaseModel):
    """Of a country."""

    city: str


async def writes_what_fits_a_schema(clients: Clients, _: Settings) -> None:
    answer = await clients.anthropic.write(
        instructions="Name the capital of the country.", prompt="France", output=Capital
    )
    assert answer.city


async def translates(clients: Clients, _: Settings) -> None:
    assert await clients.deepl.translate("Bonjour.", source="fr", target="de") not in ("", "Bonjour.")


async def speaks(clients: Clients, _: Settings) -> None:
    speech = await clients.gemini.speak("Buenos días.", "es")
    assert speech.content_type == "audio/wav"
    with wave.open(io.BytesIO(speech.audio)) as sound:
        assert sound.getnframes() > 0


async def gives_rows_and_takes_cells(clients: Clients, settings: Settings) -> None:
    sheet = settings.backlog_sheet
    rows = await clients.sheets.read(sheet)
    assert rows, "the sheet is empty"
    # What is there already: it may be somebody's sheet.
    same = [Cell(1, 1, rows[0][0])]
    await clients.sheets.expect_writable(sheet, same)
    await clients.sheets.write(sheet, same)
    assert await clients.sheets.read(sheet) == rows


async def takes_a_mail(clients: Clients, _: Settings) -> None:
    message = EmailMessage()
    message["From"] = message["To"] = clients.mailer.sender
    message["Subject"] = "Runledger: a mail of its tests"
    message["Message-ID"] = f"<{uuid.uuid4()}@runledger.test>"
    message.set_content("You need not do anything.")
    assert await clients.mailer.send(message, [clients.mailer.sender]) == []


async def keeps_a_file(clients: Clients, _: Settings) -> None:
    key = f"runledger-tests/{uuid.uuid4().hex}.txt"
    await clients.storage.put(key, b"hello", "text/plain")
    assert await clients.storage.get(key, max_bytes=5) == b"hello"
    with pytest.raises(Rejected, match="more than the 4 bytes"):
        await clients.storage.get(key, max_bytes=4)
    await clients.storage.delete(key)
    await clients.storage.delete(key)
    with pytest.raises(Rejected, match="There is no file"):
        await clients.storage.get(key, max_bytes=5)


async def keeps_a_file_and_signs_urls(clients: Clients, settings: Settings) -> None:
    await keeps_a_file(clients, settings)
    key = f"runledger-tests/{uuid.uuid4().hex}.txt"
    await clients.storage.put(key, b"hello", "text/plain")
    async with httpx2.AsyncClient() as anybody:
        answer = await anybody.get(await clients.storage.signed_url(key, seconds=60))
    await clients.storage.delete(key)
    assert (answer.status_code, answer.content) == (200, b"hello")


@dataclass(frozen=True)
class Contract:
    """A promise, what the real service needs, and the settings that lead to what plays it."""

    promise: Callable[[Clients, Settings], Awaitable[None]]
    needs: tuple[str, ...]
    played: Callable[[contextlib.AsyncExitStack], dict[str, Any]]
    chosen: dict[str, Any] = field(default_factory=dict[str, Any])
    """Settings that choose this service among others of its kind."""

    def missing(self, settings: Settings) -> list[str]:
        """What has to be set before the real service can be called."""
        given = {name for name in settings.model_fields_set if getattr(settings, name) is not None}
        if settings.backlog_sheet and as_file(settings.backlog_sheet):
            given.discard("backlog_sheet")
        return [name.upper() for name in self.needs if name not in given]


def _stubs(_: contextlib.AsyncExitStack) -> dict[str, Any]:
    return {"stub_generation": True, "backlog_sheet": None}


def _mailbox(stack: contextlib.AsyncExitStack) -> dict[str, Any]:
    return {"stub_generation": False, "smtp_url": stack.enter_context(mailbox()).url, "mail_from": "us@example.com"}


def _moto(stack: contextlib.AsyncExitStack) -> dict[str, Any]:
    return {
        "storage_endpoint_url": stack.enter_context(s3_server()),
        "storage_bucket": BUCKET,
        "storage_access_key": "key",
        "storage_secret_key": "secret",
    }


def _bunny(stack: contextlib.AsyncExitStack) -> dict[str, Any]:
    stubs = Stubs({"bunny": bunny()})
    stack.push_async_callback(stubs.aclose)
    return {
        "bunny_zone": "zone",
        "bunny_api_key": BUNNY_KEY,
        "bunny_storage_endpoint": stubs.url("bunny"),
        "bunny_cdn_base_url": "https://zone.b-cdn.net",
        "bunny_token_auth_key": "token key",
    }


CONTRACTS = {
    "anthropic": Contract(writes_what_fits_a_schema, ("anthropic_api_key",), _stubs),
    "deepl": Contract(translates, ("deepl_api_key",), _stubs),
    "gemini": Contract(speaks, ("gemini_api_key",), _stubs),
    "google_sheets": Contract(gives_rows_and_takes_cells, ("google_service_account", "backlog_sheet"), _stubs),
    "smtp": Contract(takes_a_mail, ("smtp_url", "mail_from"), _mailbox),
    "s3": Contract(
        keeps_a_file_and_signs_urls,
        ("storage_bucket", "storage_access_key", "storage_secret_key"),
        _moto,
        {"storage_provider": "s3"},
    ),
    "bunny": Contract(
        keeps_a_file,
        ("bunny_zone", "bunny_api_key", "bunny_cdn_base_url", "bunny_token_auth_key"),
        _bunny,
        {"storage_provider": "bunny"},
    ),
}
