"""From the sheet to the backlog, and from what it says there to scores: in batches, each a step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from app.domain.backlog.items import BacklogItem, InvalidRow, read_items
from app.domain.backlog.neighbours import Sheets, Shelf
from app.domain.backlog.scores import rice, wsjf
from app.domain.journal import Journal

BATCH = 500
SHOWN = 100
"""Invalid rows that a report names."""
BEST = 10


class Changes(BaseModel):
    """How many items of a batch were new, how many others than before."""

    added: int
    changed: int


class SyncReport(BaseModel):
    """What has become of the rows of the sheet."""

    items: int
    added: int
    changed: int
    unchanged: int
    removed: int
    """That the sheet no longer has."""
    invalid: int
    """Rows; their items stay as they were."""
    invalid_rows: list[InvalidRow]
    """The first 100."""


class ScoredBatch(BaseModel):
    """A batch of items that have their scores."""

    last_key: str
    scored: int
    changed: int


class RankedItem(BaseModel):
    """An item and what it is worth."""

    model_config = ConfigDict(extra="ignore")

    key: str
    title: str
    rice: float | None
    wsjf: float | None


class ScoreReport(BaseModel):
    """How many items have scores, and how many of these are others than before."""

    scored: int
    changed: int
    best: list[RankedItem]
    """The ten with the highest RICE."""


async def sync_backlog(run: Journal, sheets: Sheets, shelf: Shelf, sheet: str | None) -> SyncReport:
    """Make the backlog what the sheet says.

    Raises:
        Rejected: the sheet is no backlog, or may not be read.
        Unavailable: it cannot be read now.
    """
    # A step, so that every attempt works with the same rows.
    reading = read_items(await run.step("read", sheets.read, sheet))
    total, done, added, changed = len(reading.items), 0, 0, 0
    for number, batch in enumerate(_batches(reading.items), start=1):
        changes = await run.step(f"store-{number}", _store, shelf, batch)
        done, added, changed = done + len(batch), added + changes.added, changed + changes.changed
        await run.progress(done, total, f"{done} of {total} items stored")
    return SyncReport(
        items=total,
        added=added,
        changed=changed,
        unchanged=total - added - changed,
        removed=await run.step("remove", shelf.keep_only, reading.keys),
        invalid=len(reading.invalid),
        invalid_rows=reading.invalid[:SHOWN],
    )


async def recompute_scores(run: Journal, shelf: Shelf) -> ScoreReport:
    """Give every item its RICE and WSJF."""
    total, scored, changed, last_key = await run.step("count", shelf.count), 0, 0, ""
    for number in itertools.count(1):
        batch = await run.step(f"score-{number}", _score, shelf, last_key)
        if batch is None:
            break
        scored, changed, last_key = scored + batch.scored, changed + batch.changed, batch.last_key
        await run.progress(scored, max(total, scored), f"{scored} items scored")
    best = [RankedItem.model_validate(item) for item in await shelf.list_best(BEST)]
    return ScoreReport(scored=scored, changed=changed, best=best)


def _batches(items: Sequence[BacklogItem]) -> list[Sequence[BacklogItem]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


async def _store(shelf: Shelf, batch: Sequence[BacklogItem]) -> Changes:
    return Changes.model_validate(await shelf.put([item.model_dump() for item in batch]))


async def _score(shelf: Shelf, last_key: str) -> ScoredBatch | None:
    items = [BacklogItem.model_validate(item) for item in await shelf.list_after(last_key, limit=BATCH)]
    if not items:
        return None
    changed = await shelf.set_scores([{"key": item.key, "rice": rice(item), "wsjf": wsjf(item)} for item in items])
    return ScoredBatch(last_key=items[-1].key, scored=len(items), changed=changed)
