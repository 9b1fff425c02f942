"""What runs have read from the web, for other runs to use."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.vectors.texts import Source
from app.errors import Rejected
from app.outbound.postgres.database import autocommit
from app.runs import queries
from app.runs.state import RunState

ONE_PAGE = "scrape_page"
MANY_PAGES = "scrape_site"


async def pages_of(engine: AsyncEngine, run_id: str, *, owner: str | None) -> list[Source]:
    """The texts of the pages that a run of the owner's has read; no owner: of anybody's.

    Raises:
        Rejected: there is no such run, or it has read no pages, or not yet.
    """
    async with autocommit(engine).connect() as connection:
        run = await queries.get_run(connection, run_id, owner=owner)
        if run is None or run.action not in (ONE_PAGE, MANY_PAGES):
            raise Rejected(f"There is no run of {ONE_PAGE} or {MANY_PAGES} with the id given as run_id.")
        if run.state != RunState.SUCCEEDED:
            raise Rejected(f"The run given as run_id is {run.state}: its pages can be embedded when it has succeeded.")
        if run.action == ONE_PAGE:
            return _texts([run.result])
        return _texts((await queries.get_steps(connection, run_id)).values())


def _texts(pages: Any) -> list[Source]:
    # A page that failed has no text.
    return [Source(text=page["text"], source=page["url"]) for page in pages if page.get("text")]
