"""Every statement about adventures, one function each; and what the run of an entry may do with them.

Here `owner` is whose adventure it must be; `None`: anybody's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.outbound.gemini.client import Speech
from app.outbound.postgres.database import autocommit

AdventureRow = Row[Any]
EntryRow = Row[Any]

_IS_THE_OWNERS = "(CAST(:owner AS text) IS NULL OR adventure.owner = :owner)"
_ADVENTURE = """
SELECT adventure.id, adventure.owner, adventure.language, adventure.native_language, adventure.level, adventure.premise,
       adventure.created_at,
       CASE first.status WHEN 'complete' THEN 'active' WHEN 'error' THEN 'error' ELSE 'awaiting_first_entry' END
       AS status
  FROM adventures AS adventure
  JOIN adventure_entries AS first ON first.adventure_id = adventure.id AND first.position = 1
"""


class AdventureShelf:
    """What one run may do with adventures: those of its own owner, or if it has none, all."""

    def __init__(self, engine: AsyncEngine, *, run_id: str) -> None:
        self._engine = engine
        self._run_id = run_id

    async def get_telling(self, adventure_id: UUID, entry_id: UUID, *, owner: str | None) -> Mapping[str, Any] | None:
        """What an entry's text depends on, if the run may write it."""
        async with autocommit(self._engine).connect() as connection:
            return await get_telling(connection, adventure_id, entry_id, owner=owner, run_id=self._run_id)

    async def get_speech(self) -> Speech | None:
        """What the run has had spoken, if it has, and its entry is not complete."""
        async with autocommit(self._engine).connect() as connection:
            return await get_speech(connection, self._run_id)

    async def keep_speech(self, speech: Speech) -> None:
        """Keep what the run has had spoken, until its entry is complete."""
        async with autocommit(self._engine).connect() as connection:
            await insert_speech(connection, self._run_id, speech)

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
        """Store all of an entry in one transaction, unless it is stored: then nothing is changed."""
        async with self._engine.begin() as connection:
            if await set_complete(connection, entry_id, page=text, words=words):
                await insert_choices(connection, entry_id, choices)
                await insert_translation(connection, entry_id, translation)
                await insert_audio(connection, entry_id, key=audio_key, content_type=audio_type)
            await delete_speech(connection, self._run_id)


async def insert_adventure(
    connection: AsyncConnection,
    *,
    owner: str | None,
    language: str,
    native_language: str,
    level: str,
    premise: str | None,
) -> UUID:
    """A new adventure, without entries."""
    statement = text("""
        INSERT INTO adventures (id, owner, language, native_language, level, premise)
        VALUES (:id, :owner, :language, :native_language, :level, :premise)
        RETURNING id
    """)
    values = {
        "id": uuid4(),
        "owner": owner,
        "language": language,
        "native_language": native_language,
        "level": level,
        "premise": premise,
    }
    return (await connection.execute(statement, values)).scalar_one()


async def insert_entry(connection: AsyncConnection, adventure_id: UUID) -> UUID:
    """The next entry of an adventure, pending."""
    statement = text("""
        INSERT INTO adventure_entries (id, adventure_id, position)
        SELECT :id, :adventure_id, 1 + count(*) FROM adventure_entries WHERE adventure_id = :adventure_id
        RETURNING id
    """)
    return (await connection.execute(statement, {"id": uuid4(), "adventure_id": adventure_id})).scalar_one()


async def set_run(connection: AsyncConnection, entry_id: UUID, *, run_id: str) -> None:
    """Say which run writes an entry."""
    statement = text("UPDATE adventure_entries SET run_id = :run_id WHERE id = :entry_id")
    await connection.execute(statement, {"entry_id": entry_id, "run_id": run_id})


async def list_adventures(
    connection: AsyncConnection, *, owner: str | None, limit: int, after: UUID | None
) -> Sequence[AdventureRow]:
    """Adventures, the newest first, from the one behind `after` on."""
    statement = text(f"""
        {_ADVENTURE}
         WHERE {_IS_THE_OWNERS}
           AND (CAST(:after AS uuid) IS NULL
                OR (adventure.created_at, adventure.id) < (SELECT created_at, id FROM adventures WHERE id = :after))
         ORDER BY adventure.created_at DESC, adventure.id DESC
         LIMIT :limit
    """)  # noqa: S608 - of what is written here
    return (await connection.execute(statement, {"owner": owner, "limit": limit, "after": after})).all()


async def get_adventure(connection: AsyncConnection, adventure_id: UUID, *, owner: str | None) -> AdventureRow | None:
    """One adventure, if it is the owner's."""
    statement = text(f"{_ADVENTURE} WHERE adventure.id = :adventure_id AND {_IS_THE_OWNERS}")
    return (await connection.execute(statement, {"adventure_id": adventure_id, "owner": owner})).first()


async def get_adventure_of_run(connection: AsyncConnection, run_id: str) -> UUID:
    """The adventure of which a run writes an entry."""
    statement = text("SELECT adventure_id FROM adventure_entries WHERE run_id = :run_id")
    return (await connection.execute(statement, {"run_id": run_id})).scalar_one()


async def list_entries(connection: AsyncConnection, adventure_id: UUID) -> Sequence[EntryRow]:
    """The entries of an adventure, the first first, each with all that belongs to it."""
    statement = text("""
        SELECT entry.id, entry.status, entry.text, translation.text AS translation, audio.key AS audio_key,
               coalesce(entry.words, '[]') AS words, entry.run_id, decision.choice_id AS chosen,
               (SELECT coalesce(jsonb_agg(jsonb_build_object('id', id, 'text', text) ORDER BY position), '[]')
                  FROM adventure_choices WHERE entry_id = entry.id) AS choices
          FROM adventure_entries AS entry
          LEFT JOIN adventure_translations AS translation ON translation.entry_id = entry.id
          LEFT JOIN adventure_audio AS audio ON audio.entry_id = entry.id
          LEFT JOIN adventure_decisions AS decision ON decision.entry_id = entry.id
         WHERE entry.adventure_id = :adventure_id
         ORDER BY entry.position
    """)
    return (await connection.execute(statement, {"adventure_id": adventure_id})).all()


async def get_entry_of_choice(connection: AsyncConnection, adventure_id: UUID, choice_id: UUID) -> UUID | None:
    """The entry at whose end there is this choice, if it is one of the adventure."""
    statement = text("""
        SELECT entry.id FROM adventure_choices AS choice
          JOIN adventure_entries AS entry ON entry.id = choice.entry_id
         WHERE choice.id = :choice_id AND entry.adventure_id = :adventure_id
    """)
    values = {"adventure_id": adventure_id, "choice_id": choice_id}
    return (await connection.execute(statement, values)).scalar_one_or_none()


async def insert_decision(connection: AsyncConnection, entry_id: UUID, choice_id: UUID) -> bool:
    """Decide what is chosen at the end of an entry, unless that is decided."""
    statement = text("""
        INSERT INTO adventure_decisions (entry_id, choice_id) VALUES (:entry_id, :choice_id)
            ON CONFLICT (entry_id) DO NOTHING
        RETURNING entry_id
    """)
    values = {"entry_id": entry_id, "choice_id": choice_id}
    return (await connection.execute(statement, values)).first() is not None


async def get_telling(
    connection: AsyncConnection, adventure_id: UUID, entry_id: UUID, *, owner: str | None, run_id: str
) -> Mapping[str, Any] | None:
    """What an entry's text depends on, if it is of exactly this owner, and the run is the owner's or nobody's."""
    statement = text("""
        SELECT adventure.language, adventure.native_language, adventure.level, adventure.premise,
               entry.status = 'complete' AS is_complete,
               (SELECT coalesce(jsonb_agg(jsonb_build_object('text', before.text, 'chosen', choice.text)
                                          ORDER BY before.position), '[]')
                  FROM adventure_entries AS before
                  JOIN adventure_decisions AS decision ON decision.entry_id = before.id
                  JOIN adventure_choices AS choice ON choice.id = decision.choice_id
                 WHERE before.adventure_id = adventure.id AND before.position < entry.position) AS told
          FROM adventure_entries AS entry
          JOIN adventures AS adventure ON adventure.id = entry.adventure_id
          JOIN action_runs AS run ON run.id = :run_id AND (run.owner IS NULL OR run.owner = adventure.owner)
         WHERE entry.id = :entry_id AND adventure.id = :adventure_id
           AND adventure.owner IS NOT DISTINCT FROM CAST(:owner AS text)
    """)
    values = {"adventure_id": adventure_id, "entry_id": entry_id, "owner": owner, "run_id": run_id}
    row = (await connection.execute(statement, values)).first()
    return None if row is None else row._asdict()


async def set_complete(connection: AsyncConnection, entry_id: UUID, *, page: str, words: list[dict[str, Any]]) -> bool:
    """Store the text of an entry, unless it has one."""
    statement = text("""
        UPDATE adventure_entries SET status = 'complete', text = :page, words = CAST(:words AS jsonb)
         WHERE id = :entry_id AND status <> 'complete'
        RETURNING id
    """)
    values = {"entry_id": entry_id, "page": page, "words": json.dumps(words)}
    return (await connection.execute(statement, values)).first() is not None


async def insert_choices(connection: AsyncConnection, entry_id: UUID, texts: list[str]) -> None:
    """What may be chosen at the end of an entry, in this order."""
    statement = text("""
        INSERT INTO adventure_choices (id, entry_id, position, text) VALUES (:id, :entry_id, :position, :text)
    """)
    values = [
        {"id": uuid4(), "entry_id": entry_id, "position": position, "text": each}
        for position, each in enumerate(texts, start=1)
    ]
    await connection.execute(statement, values)


async def insert_translation(connection: AsyncConnection, entry_id: UUID, translation: str) -> None:
    """What an entry says, in the language that its reader knows."""
    statement = text("""
        INSERT INTO adventure_translations (entry_id, language, text)
        SELECT entry.id, adventure.native_language, :translation
          FROM adventure_entries AS entry JOIN adventures AS adventure ON adventure.id = entry.adventure_id
         WHERE entry.id = :entry_id
    """)
    await connection.execute(statement, {"entry_id": entry_id, "translation": translation})


async def insert_audio(connection: AsyncConnection, entry_id: UUID, *, key: str, content_type: str) -> None:
    """Where an entry, spoken, is kept."""
    statement = text("INSERT INTO adventure_audio (entry_id, key, content_type) VALUES (:entry_id, :key, :type)")
    await connection.execute(statement, {"entry_id": entry_id, "key": key, "type": content_type})


async def get_speech(connection: AsyncConnection, run_id: str) -> Speech | None:
    """What a run has had spoken, if it is kept."""
    statement = text("SELECT audio, content_type FROM adventure_speeches WHERE run_id = :run_id")
    row = (await connection.execute(statement, {"run_id": run_id})).first()
    return None if row is None else Speech(row.audio, row.content_type)


async def insert_speech(connection: AsyncConnection, run_id: str, speech: Speech) -> None:
    """Keep what a run has had spoken, unless something is kept."""
    statement = text("""
        INSERT INTO adventure_speeches (run_id, audio, content_type) VALUES (:run_id, :audio, :content_type)
            ON CONFLICT (run_id) DO NOTHING
    """)
    values = {"run_id": run_id, "audio": speech.audio, "content_type": speech.content_type}
    await connection.execute(statement, values)


async def delete_speech(connection: AsyncConnection, run_id: str) -> None:
    """Keep what a run has had spoken no longer."""
    await connection.execute(text("DELETE FROM adventure_speeches WHERE run_id = :run_id"), {"run_id": run_id})
