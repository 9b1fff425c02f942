"""The tables of adventures. Alembic makes them; a test holds these against what it makes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

metadata = MetaData()


def _id() -> Column[Any]:
    return Column("id", Uuid(), nullable=False)


def _created_at() -> Column[Any]:
    return Column("created_at", TIMESTAMP(timezone=True), server_default=text("now()"), nullable=False)


def _belongs_to(table: str, column: str, other: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}", ondelete="CASCADE")


adventures = Table(
    "adventures",
    metadata,
    _id(),
    #: Who reads it. NULL: nobody in particular.
    Column("owner", Text()),
    Column("language", Text(), nullable=False),
    Column("native_language", Text(), nullable=False),
    Column("level", Text(), nullable=False),
    Column("premise", Text()),
    _created_at(),
    PrimaryKeyConstraint("id", name="pk_adventures"),
    Index("ix_adventures_owner_created_at_id", "owner", "created_at", "id"),
)

entries = Table(
    "adventure_entries",
    metadata,
    _id(),
    Column("adventure_id", Uuid(), nullable=False),
    #: 1 for the first.
    Column("position", Integer(), nullable=False),
    Column("status", Text(), server_default=text("'pending'"), nullable=False),
    Column("text", Text()),
    #: [{text, lemma, start, sentence}]
    Column("words", JSONB()),
    #: The run that was submitted with it. No foreign key: runs are pruned.
    Column("run_id", Text(collation="C")),
    _created_at(),
    PrimaryKeyConstraint("id", name="pk_adventure_entries"),
    UniqueConstraint("adventure_id", "position", name="uq_adventure_entries_adventure_id_position"),
    _belongs_to("adventure_entries", "adventure_id", "adventures"),
    CheckConstraint("status IN ('pending', 'complete', 'error')", name="ck_adventure_entries_status"),
)

choices = Table(
    "adventure_choices",
    metadata,
    _id(),
    Column("entry_id", Uuid(), nullable=False),
    Column("position", Integer(), nullable=False),
    Column("text", Text(), nullable=False),
    PrimaryKeyConstraint("id", name="pk_adventure_choices"),
    UniqueConstraint("entry_id", "position", name="uq_adventure_choices_entry_id_position"),
    _belongs_to("adventure_choices", "entry_id", "adventure_entries"),
)

decisions = Table(
    "adventure_decisions",
    metadata,
    #: At its end. One a page.
    Column("entry_id", Uuid(), nullable=False),
    Column("choice_id", Uuid(), nullable=False),
    _created_at(),
    PrimaryKeyConstraint("entry_id", name="pk_adventure_decisions"),
    _belongs_to("adventure_decisions", "entry_id", "adventure_entries"),
    _belongs_to("adventure_decisions", "choice_id", "adventure_choices"),
    Index("ix_adventure_decisions_choice_id", "choice_id"),
)

translations = Table(
    "adventure_translations",
    metadata,
    Column("entry_id", Uuid(), nullable=False),
    Column("language", Text(), nullable=False),
    Column("text", Text(), nullable=False),
    PrimaryKeyConstraint("entry_id", "language", name="pk_adventure_translations"),
    _belongs_to("adventure_translations", "entry_id", "adventure_entries"),
)

audio = Table(
    "adventure_audio",
    metadata,
    Column("entry_id", Uuid(), nullable=False),
    #: Where the storage has it.
    Column("key", Text(), nullable=False),
    Column("content_type", Text(), nullable=False),
    PrimaryKeyConstraint("entry_id", name="pk_adventure_audio"),
    _belongs_to("adventure_audio", "entry_id", "adventure_entries"),
)

# As far as it is referred to: the rest of it is for the ledger to say.
_runs = Table("action_runs", MetaData(), Column("id", Text(collation="C"), primary_key=True))

speeches = Table(
    "adventure_speeches",
    metadata,
    #: Whose speech it is. Deleted with the run, which may be retried until then.
    Column("run_id", Text(collation="C"), nullable=False),
    Column("audio", LargeBinary(), nullable=False),
    Column("content_type", Text(), nullable=False),
    PrimaryKeyConstraint("run_id", name="pk_adventure_speeches"),
    ForeignKeyConstraint(["run_id"], [_runs.c.id], name="fk_adventure_speeches_run_id", ondelete="CASCADE"),
)
