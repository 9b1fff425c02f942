"""DeepL's client, with a stub on the wire."""

from __future__ import annotations

import contextlib

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.config import Settings
from app.errors import ActionError, RateLimited, Rejected, Unavailable
from app.outbound.deepl.client import MAX_SECONDS, DeepLClient
from app.outbound.deepl.languages import supports
from app.outbound.stubs import Stubs


async def translate(settings: Settings, stubs: Stubs, text: str, *, timeout: float = MAX_SECONDS) -> str:
    async with contextlib.aclosing(DeepLClient(settings, stubs, timeout=timeout)) as client:
        return await client.translate(text, source="fr", target="en")


async def test_a_text_is_translated(keyless: Settings, stubs: Stubs) -> None:
    assert await translate(keyless, stubs, "Bonjour.") == "[en] Bonjour."


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ("[stub:429]", RateLimited, "DeepL answered 429"),
        ("[stub:500]", Unavailable, "DeepL answered 500"),
        ("[stub:malformed]", Unavailable, "cannot be read"),
        ("[stub:slow]", Unavailable, "took too long"),
    ],
)
async def test_each_trouble_is_an_error_that_says_what_to_do(
    keyless: Settings, asked: str, error: type[ActionError], message: str, stubs: Stubs
) -> None:
    with pytest.raises(error, match=message) as raised:
        await translate(keyless, stubs, f"Bonjour. {asked}", timeout=0.5 if "slow" in asked else MAX_SECONDS)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "Check DEEPL_API_KEY"), (456, "used up"), (400, "asking again will not help")],
)
async def test_what_deepl_refuses_is_rejected(keyless: Settings, status: int, message: str) -> None:
    async def refuse(_: Request) -> Response:
        return JSONResponse({"message": "no"}, status)

    refusing = Stubs({"deepl": Starlette(routes=[Route("/v2/translate", refuse, methods=["POST"])])})
    async with contextlib.aclosing(refusing):
        with pytest.raises(Rejected, match=message):
            await translate(keyless, refusing, "Bonjour.")


async def test_a_service_that_is_not_there_is_unavailable(keyless: Settings) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await translate(keyless, Stubs({}, served_at="http://127.0.0.1:1"), "Bonjour.")


async def test_without_a_key_and_without_a_stub_nothing_is_asked(keyless: Settings, stubs: Stubs) -> None:
    with pytest.raises(Rejected, match="Set DEEPL_API_KEY"):
        await translate(keyless.model_copy(update={"stub_generation": False}), stubs, "Bonjour.")


async def test_languages_that_deepl_does_not_know_are_rejected(keyless: Settings, stubs: Stubs) -> None:
    async with contextlib.aclosing(DeepLClient(keyless, stubs)) as client:
        with pytest.raises(Rejected, match="Choose other languages"):
            await client.translate("nuqneH", source="tlh", target="en")


@pytest.mark.parametrize(
    ("source", "target", "supported"), [("fr", "en", True), ("en", "pt", True), ("fr", "fr", False), ("fr", "x", False)]
)
def test_some_pairs_are_supported(source: str, target: str, supported: bool) -> None:
    assert supports(source, target) is supported
