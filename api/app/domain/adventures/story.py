"""What is told, and how the storyteller is asked for the next page."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from app.outbound.anthropic.client import AnthropicClient
from app.outbound.deepl import languages as translated
from app.outbound.spacy.client import LANGUAGES

REMEMBERED = 5
"""Pages that the storyteller is told again: the newest."""

Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
"""ISO 639-1."""


class Level(StrEnum):
    """How much of the language the reader knows (CEFR). Stored in rows, so a name never changes meaning."""

    A1 = "A1"
    A2 = "A2"
    B1 = "B1"
    B2 = "B2"
    C1 = "C1"
    C2 = "C2"


class Told(BaseModel):
    """A page of before, and what the reader has chosen at its end."""

    text: str
    chosen: str


class Telling(BaseModel):
    """All that the next page depends on."""

    language: str
    """That the reader learns, and the story is told in."""
    native_language: str
    """That the reader knows."""
    level: Level
    premise: str | None
    """What the story is about; `None`: the storyteller decides."""
    told: list[Told]
    """The pages before, the oldest first."""
    is_complete: bool
    """Whether the page is there already."""


class Page(BaseModel):
    """What the storyteller answers."""

    text: str = Field(min_length=1, max_length=4000, description="The next page: 80 to 150 words.")
    choices: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        min_length=2, max_length=3, description="What the reader may decide to do next, a short sentence each."
    )


def supports(language: str, native_language: str) -> bool:
    """Whether there can be an adventure in `language` for who knows `native_language`."""
    return language in LANGUAGES and translated.supports(language, native_language)


async def write_page(anthropic: AnthropicClient, telling: Telling) -> Page:
    """The next page, and the choices at its end."""
    return await anthropic.write(instructions=_instructions(telling), prompt=_prompt(telling), output=Page)


def _instructions(telling: Telling) -> str:
    return (
        f"You tell an adventure to somebody who learns the language {telling.language!r} (ISO 639-1) and is at level "
        f"{telling.level} of the CEFR. Write text and choices in that language only, with words and grammar of that "
        "level, in the second person. Each page ends where the reader must decide. Go on from what the reader has "
        "chosen. Keep it fit for all ages."
    )


def _prompt(telling: Telling) -> str:
    about = f"The story is about: {telling.premise}" if telling.premise else "Decide what the story is about."
    if not telling.told:
        return f"{about}\n\nWrite the first page."
    pages = [f"{told.text}\n\nThe reader chose: {told.chosen}" for told in telling.told[-REMEMBERED:]]
    return "\n\n".join([about, "The story so far:", *pages, "Write the next page."])
