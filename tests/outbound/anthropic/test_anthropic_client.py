"""Claude's client, with a stub on the wire: what it asks for, and what becomes of each trouble."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.config import Settings
from app.errors import ActionError, RateLimited, Rejected, Unavailable
from app.outbound.anthropic.client import MAX_SECONDS, AnthropicClient
from app.outbound.stubs import RETRY_AFTER_SECONDS, Stubs


class Ending(BaseModel):
    text: str = Field(max_length=80)
    mood: Literal["glad", "sad"]


class Tale(BaseModel):
    text: str
    endings: list[Ending] = Field(min_length=2, max_length=2)
    pages: int = Field(ge=3, le=5)
    title: str | None


@contextlib.asynccontextmanager
async def client(settings: Settings, stubs: Stubs, *, timeout: float = MAX_SECONDS) -> AsyncGenerator[AnthropicClient]:
    async with contextlib.aclosing(AnthropicClient(settings, stubs, timeout=timeout)) as opened:
        yield opened


async def tell(settings: Settings, stubs: Stubs, prompt: str, *, timeout: float = MAX_SECONDS) -> Tale:
    async with client(settings, stubs, timeout=timeout) as opened:
        return await opened.write(instructions="Tell a tale.", prompt=prompt, output=Tale)


async def test_what_is_written_fits_the_schema(keyless: Settings, stubs: Stubs) -> None:
    tale = await tell(keyless, stubs, "About the sea.")
    assert "[stub " in tale.text
    assert len(tale.endings) == 2


async def test_the_same_question_has_the_same_answer(keyless: Settings, stubs: Stubs) -> None:
    first, second, other = [await tell(keyless, stubs, about) for about in ("the sea", "the sea", "the moon")]
    assert first == second != other


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ("[stub:429]", RateLimited, "Anthropic answered 429"),
        ("[stub:500]", Unavailable, "Anthropic answered 500"),
        ("[stub:malformed]", Unavailable, "does not fit the schema"),
        ("[stub:slow]", Unavailable, "took too long"),
    ],
)
async def test_each_trouble_is_an_error_that_says_what_to_do(
    keyless: Settings, stubs: Stubs, asked: str, error: type[ActionError], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        await tell(keyless, stubs, f"About the sea. {asked}", timeout=0.5 if "slow" in asked else MAX_SECONDS)
    assert type(raised.value) is error
    if isinstance(raised.value, RateLimited):
        assert raised.value.retry_after == RETRY_AFTER_SECONDS


async def test_trouble_for_others_is_passed_on_to_them(keyless: Settings, stubs: Stubs) -> None:
    tale = await tell(keyless, stubs, "About the sea. [stub:deepl:500 x2]")
    assert "[stub:deepl:500 x2]" in tale.text


async def test_a_service_that_is_not_there_is_unavailable(keyless: Settings) -> None:
    nobody = Stubs({}, served_at="http://127.0.0.1:1")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await tell(keyless, nobody, "About the sea.")


async def test_without_a_key_and_without_a_stub_nothing_is_asked(keyless: Settings, stubs: Stubs) -> None:
    with pytest.raises(Rejected, match="Set ANTHROPIC_API_KEY"):
        await tell(keyless.model_copy(update={"stub_generation": False}), stubs, "About the sea.")


def answering(status: int = 200, **changes: Any) -> Stubs:
    """An Anthropic that gives one answer to everything."""
    text = changes.pop("text", '{"text": "…", "endings": [], "pages": 3, "title": null}')
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }

    async def answer(_: Request) -> Response:
        return JSONResponse(message | changes, status)

    return Stubs({"anthropic": Starlette(routes=[Route("/v1/messages", answer, methods=["POST"])])})


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ({"stop_reason": "refusal", "text": "I cannot."}, Rejected, "will not answer this"),
        ({"stop_reason": "max_tokens", "text": '{"te'}, Rejected, "longer than 4096 tokens"),
        ({"text": '{"text": 1}'}, Unavailable, "does not fit the schema"),
        ({"content": []}, Unavailable, "does not fit the schema"),
        ({"status": 401}, Rejected, "Check ANTHROPIC_API_KEY"),
        ({"status": 400}, Rejected, "asking again will not help"),
        ({"status": 529}, Unavailable, "Try again later"),
    ],
    ids=("refused", "cut", "wrong", "empty", "key", "request", "overloaded"),
)
async def test_each_answer_is_an_error_that_says_what_to_do(
    keyless: Settings, answer: dict[str, Any], error: type[ActionError], message: str
) -> None:
    async with contextlib.aclosing(answering(**answer)) as stubs:
        with pytest.raises(error, match=message) as raised:
            await tell(keyless, stubs, "About the sea.")
    assert type(raised.value) is error


async def test_the_key_is_not_sent_to_a_stub(keyless: Settings, stubs: Stubs) -> None:
    played = keyless.model_copy(update={"stub_generation": True, "anthropic_api_key": SecretStr("sk-real")})
    async with client(played, stubs) as opened:
        assert opened._address()[0] == "stub"
