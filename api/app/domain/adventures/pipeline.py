"""How an entry of an adventure comes to be: each step is paid once, however many attempts it takes.

::

    write → translate → speak → analyse → store
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from pydantic import BaseModel

from app.domain.adventures.story import Telling, write_page
from app.domain.journal import Journal
from app.errors import Rejected
from app.outbound.clients import Clients
from app.outbound.gemini.client import GeminiClient, Speech

ACTION = "generate_adventure_entry"
"""Also named by the trigger that makes an entry an error when its run has failed."""
STEPS = 5


class Entry(BaseModel):
    """Which entry of which adventure."""

    adventure_id: UUID
    entry_id: UUID


class Recording(BaseModel):
    """Where a spoken text is kept."""

    key: str
    content_type: str


class Shelf(Protocol):
    """Where adventures are kept, as far as one run may see."""

    async def get_telling(self, adventure_id: UUID, entry_id: UUID, *, owner: str | None) -> Mapping[str, Any] | None:
        """What a `Telling` is made of, if the run may write this entry."""
        ...

    async def get_speech(self) -> Speech | None:
        """What the run has had spoken, if it has, and its entry is not complete."""
        ...

    async def keep_speech(self, speech: Speech) -> None:
        """Keep what the run has had spoken, until its entry is complete."""
        ...

    async def complete_entry(
        self,
        entry_id: UUID,
        *,
        text: str,
        choices: list[str],
        translation: str,
        audio_key: str,
        audio_type: str,
        words: list[dict[str, Any]],
    ) -> None:
        """Store what was written, unless it is stored."""
        ...


async def generate(run: Journal, clients: Clients, shelf: Shelf, entry: Entry, *, owner: str | None) -> Entry:
    """Write the entry, and all that its reader needs.

    Raises:
        Rejected: there is no such entry of that owner, or one of the services will not do its part.
        Unavailable: one of the services cannot do its part now.
    """
    row = await shelf.get_telling(entry.adventure_id, entry.entry_id, owner=owner)
    if row is None:
        raise Rejected("There is no such entry that this run may write: POST /adventures makes them.")
    telling = Telling.model_validate(row)
    if telling.is_complete:
        return entry
    page = await run.step("write", write_page, clients.anthropic, telling)
    await run.progress(1, STEPS, "written")
    language, native = telling.language, telling.native_language
    translation = await run.step("translate", clients.deepl.translate, page.text, source=language, target=native)
    await run.progress(2, STEPS, "translated")
    recording = await run.step("speak", speak, clients, shelf, entry, page.text, language)
    await run.progress(3, STEPS, "spoken")
    words = await run.step("analyse", clients.spacy.analyse, page.text, language)
    await run.progress(4, STEPS, "analysed")
    await run.step(
        "store",
        shelf.complete_entry,
        entry.entry_id,
        text=page.text,
        choices=page.choices,
        translation=translation,
        audio_key=recording.key,
        audio_type=recording.content_type,
        words=[word.model_dump() for word in words],
    )
    await run.progress(STEPS, STEPS, "stored")
    return entry


async def speak(clients: Clients, shelf: Shelf, entry: Entry, text: str, language: str) -> Recording:
    """Have the text spoken, and keep the sound, in the same place at every attempt."""
    speech = await shelf.get_speech() or await _spoken(clients.gemini, shelf, text, language)
    key = f"adventures/{entry.adventure_id}/{entry.entry_id}.wav"
    await clients.storage.put(key, speech.audio, speech.content_type)
    return Recording(key=key, content_type=speech.content_type)


async def _spoken(gemini: GeminiClient, shelf: Shelf, text: str, language: str) -> Speech:
    speech = await gemini.speak(text, language)
    # It is paid for, and the storage may be down. The end of the step, which is read back by each attempt and kept as
    # long as the run, is no place for megabytes.
    await shelf.keep_speech(speech)
    return speech
