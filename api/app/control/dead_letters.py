"""Dead letters: the runs that have failed for good, by likeness, and what to do with all that are alike."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from procrastinate.exceptions import UniqueViolation
from sqlalchemy.ext.asyncio import AsyncEngine

from app.control import queries
from app.control.schemas import DeadLetter, DeadLetterList, DeadLetterOutcome
from app.engine.connector import translated_errors
from app.errors import DeadLetterNotFound, InvalidCursor
from app.outbound.postgres.database import autocommit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = re.compile(r"([0-9a-f]{32})_(\d{1,17})")

BATCH = 100
BATCHES = 100
"""So many one request sees to, each a transaction of its own."""


async def list_page(engine: AsyncEngine, *, action: str | None, limit: int, cursor: str | None) -> DeadLetterList:
    """Failures by likeness, those seen last first.

    Raises:
        InvalidCursor: it is not the `next` of a page.
    """
    seen, after = (None, "") if cursor is None else _place(cursor)
    async with autocommit(engine).connect() as connection:
        rows = await queries.list_dead_letters(connection, action=action, seen=seen, after=after, limit=limit + 1)
    items = [DeadLetter.model_validate(dict(row._mapping)) for row in rows[:limit]]
    return DeadLetterList(items=items, next=_cursor(items[-1]) if len(rows) > limit else None)


def _cursor(letter: DeadLetter) -> str:
    return f"{letter.fingerprint}_{(letter.last_seen - _EPOCH) // timedelta(microseconds=1)}"


def _place(cursor: str) -> tuple[datetime, str]:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidCursor(detail="The cursor did not come from this API.")
    return _EPOCH + timedelta(microseconds=int(found[2])), found[1]


async def retry(engine: AsyncEngine, fingerprint: str) -> DeadLetterOutcome:
    """Give all that are alike another attempt, the oldest first.

    Raises:
        DeadLetterNotFound: here and below, there is none.
    """

    async def retry_all(job_ids: Sequence[int]) -> int:
        try:
            return await _retry(engine, job_ids)
        except UniqueViolation:
            return await _retry_one_by_one(engine, job_ids)

    return await _see_to(engine, fingerprint, retry_all)


async def discard(engine: AsyncEngine, fingerprint: str) -> DeadLetterOutcome:
    """Let all that are alike be dead letters no more. They stay in the ledger, failed; one that is retried all the
    same, and fails again, is a dead letter again.
    """

    async def discard_all(job_ids: Sequence[int]) -> int:
        async with autocommit(engine).connect() as connection:
            return await queries.discard_failed_runs(connection, fingerprint=fingerprint, job_ids=job_ids)

    return await _see_to(engine, fingerprint, discard_all)


async def _see_to(
    engine: AsyncEngine, fingerprint: str, see_to_all: Callable[[Sequence[int]], Awaitable[int]]
) -> DeadLetterOutcome:
    """Do something to all that are alike, batch by batch."""
    found = done = 0
    async for job_ids in _batches(engine, fingerprint):
        found += len(job_ids)
        done += await see_to_all(job_ids)
    if found == 0:
        raise DeadLetterNotFound(detail="No failed run has that fingerprint.")
    return DeadLetterOutcome(done=done, skipped=found - done, more=found >= BATCH * BATCHES)


async def _batches(engine: AsyncEngine, fingerprint: str) -> AsyncIterator[Sequence[int]]:
    """In order, so that one that fails again meanwhile is not met again."""
    after = 0
    for _ in range(BATCHES):
        async with autocommit(engine).connect() as connection:
            job_ids = await queries.list_dead_jobs(connection, fingerprint=fingerprint, after=after, limit=BATCH)
        if job_ids:
            yield job_ids
        if len(job_ids) < BATCH:
            return
        after = job_ids[-1]


async def _retry(engine: AsyncEngine, job_ids: Sequence[int]) -> int:
    with translated_errors():
        async with autocommit(engine).connect() as connection:
            return await queries.retry_failed_jobs(connection, job_ids=job_ids)


async def _retry_one_by_one(engine: AsyncEngine, job_ids: Sequence[int]) -> int:
    done = 0
    for job_id in job_ids:
        try:
            done += await _retry(engine, [job_id])
        except UniqueViolation:
            # Another job waits under its queueing lock, and does the same work.
            continue
    return done
