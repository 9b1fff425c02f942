"""One thing done to many runs: itself a run, which goes on after its last finished page, whoever performs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine

from app.engine.manager import JobManager
from app.errors import Refused
from app.outbound.postgres.database import autocommit
from app.runs import pages, queries, service, submission
from app.runs.actions import Actions
from app.runs.context import Run
from app.runs.idempotency import Idempotency
from app.runs.intake import Intake
from app.runs.schemas import BulkDone, BulkOp, BulkRuns, RunReplay

NAME = "bulk_runs"
"""The action."""
PAGE = 100


@dataclass(frozen=True)
class Hands:
    """What it takes to change runs."""

    engine: AsyncEngine
    manager: JobManager
    actions: Actions
    intake: Intake


class _Page(BaseModel):
    """What became of one page, as its step stores it."""

    done: int
    refused: int
    after: int | None
    """The job to go on after."""


async def perform(run: Run, asked: BulkRuns, hands: Hands) -> BulkDone:
    """Do what is asked to the runs that are older than this one and belong to whoever submitted it, page by page.

    A page that was not finished is done again: what has been cancelled, retried or replayed by then is so only once.
    """
    async with autocommit(hands.engine).connect() as connection:
        itself = await queries.get_run(connection, run.id)
    assert itself is not None, "it is being performed"
    # Not from the params, which anybody may write: from the row.
    bulk = _Bulk(run.id, itself.owner, asked, hands)
    matched = await run.step("matched", bulk.count)
    total = BulkDone(matched=matched, done=0, refused=0)
    async for page in bulk.pages(run, before=itself.job_id):
        total = total.model_copy(update={"done": total.done + page.done, "refused": total.refused + page.refused})
        await run.progress(total.done + total.refused, matched)
    return total


async def count(engine: AsyncEngine, asked: BulkRuns, *, owner: str | None) -> int:
    """How many runs would be looked at."""
    async with autocommit(engine).connect() as connection:
        if asked.ids is not None:
            return await pages.count_ids(connection, asked.ids, owner=owner)
        assert asked.filter is not None
        return await pages.count(connection, owner=owner, **asked.filter.model_dump())


@dataclass(frozen=True)
class _Bulk:
    run_id: str
    owner: str | None
    asked: BulkRuns
    hands: Hands

    async def count(self) -> int:
        return await count(self.hands.engine, self.asked, owner=self.owner)

    async def pages(self, run: Run, before: int) -> AsyncGenerator[_Page]:
        if self.asked.ids is not None:
            for start in range(0, len(self.asked.ids), PAGE):
                yield await run.step(f"ids-{start}", self.change, self.asked.ids[start : start + PAGE])
            return
        following: int | None = before
        while following is not None:
            page = await run.step(f"before-{following}", self.change_page, following)
            yield page
            following = page.after

    async def change_page(self, before: int) -> _Page:
        assert self.asked.filter is not None
        async with autocommit(self.hands.engine).connect() as connection:
            found = await pages.get_page(
                connection, limit=PAGE, before=before, owner=self.owner, **self.asked.filter.model_dump()
            )
        return (await self.change([row.id for row in found.rows])).model_copy(update={"after": found.last})

    async def change(self, ids: list[str]) -> _Page:
        refused = 0
        for run_id in ids:
            try:
                await self._change_one(run_id)
            except Refused:
                refused += 1
        return _Page(done=len(ids) - refused, refused=refused, after=None)

    async def _change_one(self, run_id: str) -> None:
        match self.asked.op:
            case BulkOp.CANCEL:
                await service.cancel(self.hands.engine, self.hands.manager, run_id, owner=self.owner)
            case BulkOp.RETRY:
                await service.retry(self.hands.engine, run_id, owner=self.owner)
            case BulkOp.REPLAY:
                again = await service.again(self.hands.engine, run_id, RunReplay(), owner=self.owner)
                # So that a page that is done again does not replay its runs again.
                origin = replace(again.origin, key=Idempotency(self.run_id, run_id, BulkOp.REPLAY))
                await submission.accept(
                    self.hands.intake, self.hands.actions.named(again.request.action), again.request, origin
                )
