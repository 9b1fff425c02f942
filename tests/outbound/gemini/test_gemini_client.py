"""Gemini's client, with a stub on the wire."""

from __future__ import annotations

import contextlib
import io
import wave
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.config import Settings
from app.errors import ActionError, RateLimited, Rejected, Unavailable
from app.outbound.gemini.client import MAX_SECONDS, GeminiClient, Speech
from app.outbound.stubs import RETRY_AFTER_SECONDS, Stubs


async def speak(settings: Settings, stubs: Stubs, text: str, *, timeout: float = MAX_SECONDS) -> Speech:
    async with contextlib.aclosing(GeminiClient(settings, stubs, timeout=timeout)) as client:
        return await client.speak(text, "fr")


def seconds(speech: Speech) -> float:
    with wave.open(io.BytesIO(speech.audio)) as wav:
        return wav.getnframes() / wav.getframerate()


async def test_a_longer_text_takes_longer_to_say(keyless: Settings, stubs: Stubs) -> None:
    short, long = [await speak(keyless, stubs, text) for text in ("Bonjour.", "Bonjour. " * 10)]
    assert short.content_type == long.content_type == "audio/wav"
    assert 0 < seconds(short) < seconds(long)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ("[stub:429]", RateLimited, "Gemini answered 429"),
        ("[stub:500]", Unavailable, "Gemini answered 500"),
        ("[stub:malformed]", Unavailable, "cannot be read"),
        ("[stub:slow]", Unavailable, "took too long"),
    ],
)
async def test_each_trouble_is_an_error_that_says_what_to_do(
    keyless: Settings, asked: str, error: type[ActionError], message: str, stubs: Stubs
) -> None:
    with pytest.raises(error, match=message) as raised:
        await speak(keyless, stubs, f"Bonjour. {asked}", timeout=0.5 if "slow" in asked else MAX_SECONDS)
    assert type(raised.value) is error
    if isinstance(raised.value, RateLimited):
        assert raised.value.retry_after == RETRY_AFTER_SECONDS


@pytest.mark.parametrize(
    ("status", "answer", "error", "message"),
    [
        (200, {"candidates": [{"finishReason": "SAFETY"}]}, Rejected, "will not say this"),
        (200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, Rejected, "will not say this"),
        (200, {"candidates": [{"finishReason": "STOP"}]}, Unavailable, "without speech"),
        (200, {}, Unavailable, "without speech"),
        (403, {"error": {"status": "PERMISSION_DENIED"}}, Rejected, "Check GEMINI_API_KEY"),
        (404, {"error": {"status": "NOT_FOUND"}}, Rejected, "Check GEMINI_MODEL"),
    ],
)
async def test_each_answer_is_an_error_that_says_what_to_do(
    keyless: Settings, status: int, answer: dict[str, Any], error: type[ActionError], message: str
) -> None:
    async def reply(_: Request) -> Response:
        return JSONResponse(answer, status)

    stubs = Stubs({"gemini": Starlette(routes=[Route("/{version}/models/{model}", reply, methods=["POST"])])})
    async with contextlib.aclosing(stubs):
        with pytest.raises(error, match=message) as raised:
            await speak(keyless, stubs, "Bonjour.")
    assert type(raised.value) is error


async def test_a_service_that_is_not_there_is_unavailable(keyless: Settings) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await speak(keyless, Stubs({}, served_at="http://127.0.0.1:1"), "Bonjour.")


async def test_without_a_key_and_without_a_stub_nothing_is_asked(keyless: Settings, stubs: Stubs) -> None:
    with pytest.raises(Rejected, match="Set GEMINI_API_KEY"):
        await speak(keyless.model_copy(update={"stub_generation": False}), stubs, "Bonjour.")
