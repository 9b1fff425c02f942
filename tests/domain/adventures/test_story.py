"""The storyteller is asked for a page that goes on from what was told and chosen."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.config import Settings
from app.domain.adventures.story import REMEMBERED, Level, Telling, Told, supports, write_page
from app.outbound.anthropic.client import AnthropicClient
from app.outbound.anthropic.stub import create_message
from app.outbound.stubs import Stubs

TELLING = Telling(
    language="fr", native_language="en", level=Level.A2, premise="A lighthouse.", told=[], is_complete=False
)


@pytest.fixture
def asked() -> list[dict[str, Any]]:
    """What the storyteller is asked, as it comes over the wire."""
    return []


@pytest.fixture
async def anthropic(asked: list[dict[str, Any]]) -> AsyncIterator[AnthropicClient]:
    async def answer(request: Request) -> Response:
        asked.append(await request.json())
        return await create_message(request)

    stubs = Stubs({"anthropic": Starlette(routes=[Route("/v1/messages", answer, methods=["POST"])])})
    settings = Settings(_env_file=None, environment="test", stub_generation=True)
    async with contextlib.aclosing(stubs), contextlib.aclosing(AnthropicClient(settings, stubs)) as client:
        yield client


async def test_a_page_has_a_text_and_choices(anthropic: AnthropicClient, asked: list[dict[str, Any]]) -> None:
    page = await write_page(anthropic, TELLING)
    assert page.text
    assert 2 <= len(page.choices) <= 3
    assert "'fr'" in asked[0]["system"]
    assert "level A2" in asked[0]["system"]
    assert "A lighthouse." in asked[0]["messages"][0]["content"]


async def test_the_newest_pages_are_told_again(anthropic: AnthropicClient, asked: list[dict[str, Any]]) -> None:
    told = [Told(text=f"page {number}.", chosen=f"choice {number}.") for number in range(1, REMEMBERED + 3)]
    await write_page(anthropic, TELLING.model_copy(update={"told": told}))
    prompt = asked[0]["messages"][0]["content"]
    assert "A lighthouse." in prompt
    assert [each.text in prompt for each in told] == [False] * 2 + [True] * REMEMBERED
    assert f"The reader chose: choice {REMEMBERED + 2}." in prompt


def test_stories_are_told_in_languages_whose_words_are_known() -> None:
    assert supports("fr", "en")
    assert supports("fr", "ja")
    assert not supports("ja", "fr")
    assert not supports("fr", "fr")
