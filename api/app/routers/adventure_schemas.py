"""Adventures on the wire."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.domain.adventures.story import Language, Level
from app.outbound.spacy.client import Word
from app.runs.schemas import NO_NUL


class AdventureCreate(BaseModel):
    """What somebody wants to read."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"language": "fr", "native_language": "en", "level": "A2", "premise": "A lighthouse at night."}
            ]
        },
    )

    language: Language = Field(description="That is learned, and the story is told in (ISO 639-1).")
    native_language: Language = Field(description="That is known already, and the story is translated into.")
    level: Level = Field(default=Level.A2, description="How much of the language the reader knows (CEFR).")
    premise: Annotated[str, StringConstraints(max_length=1000, pattern=NO_NUL)] | None = Field(
        default=None, description="What the story is about; null: a surprise."
    )


class DecisionCreate(BaseModel):
    """How the adventure goes on."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"choice_id": "7b0c6a3e-9b57-4c1e-8a51-0d5f3b1f6a10"}]}
    )

    choice_id: UUID


class ChoiceRead(BaseModel):
    """What may be decided at the end of an entry."""

    id: UUID
    text: str


class EntryRead(BaseModel):
    """An entry of an adventure."""

    id: UUID
    status: Literal["pending", "complete", "error"]
    text: str | None
    translation: str | None
    audio_url: str | None = Field(description="Where to hear it, for an hour.")
    words: list[Word] = Field(description="Where each word stands, and what it is a form of.")
    choices: list[ChoiceRead]
    chosen: UUID | None = Field(description="The choice that was decided for.")
    run_id: str | None = Field(description="The run that writes it. One that failed may be retried.")


class AdventureSummary(BaseModel):
    """An adventure, without what happens in it."""

    id: UUID
    status: Literal["awaiting_first_entry", "active", "error"]
    language: str
    native_language: str
    level: Level
    premise: str | None
    created_at: AwareDatetime


class AdventureRead(AdventureSummary):
    """An adventure, as far as it has gone."""

    entries: list[EntryRead] = Field(description="The first first.")


class AdventurePage(BaseModel):
    """Adventures, the newest first."""

    items: list[AdventureSummary]
    next: UUID | None = Field(description="The `cursor` of the next page; null on the last one.")
