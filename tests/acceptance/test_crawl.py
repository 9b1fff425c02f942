"""A crawl of 200 pages, on real processes and a real site, through two deaths of its worker."""

from __future__ import annotations

import signal
from pathlib import Path

from scripts.sites import CountingSite
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.eventually import eventually
from tests.support.processes import api_process, worker_process

from app.config import Settings
from app.domain.scraping.site import AT_ONCE, step_name
from runledger_client import Client

PAGES = 200


async def test_a_crawl_survives_two_kills_and_fetches_no_page_again_that_it_had_stored(
    settings: Settings, engine: AsyncEngine, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with CountingSite(PAGES) as site:
        async with api_process(settings, log) as (url, _), Client(url) as client:
            run = await client.submit("scrape_site", {"url": site.start, "max_pages": 500, "pages_per_second": 50})
            kept: dict[str, int] = {}
            for enough in (30, 110):
                with worker_process(settings, log) as worker:

                    async def has_stored(enough: int = enough) -> bool:
                        return len(await steps(engine)) >= enough

                    await eventually(has_stored, within=60)
                    worker.send_signal(signal.SIGKILL)
                    worker.wait()
                stored = await steps(engine)
                assert len(stored) < PAGES, "the worker was to be killed in the middle"
                kept |= {path: site.visits[path] for path, step in pages_of(site).items() if step in stored}
            with worker_process(settings, log):
                result = await client.result(run.id, timeout=60)
            run = await client.get(run.id)
        assert run.attempt == 3
        assert len(result["pages"]) == PAGES
        assert {path: site.visits[path] for path in kept} == kept
        visits = [site.visits[path] for path in pages_of(site)]
        assert min(visits) == 1
        assert sum(visits) - PAGES <= 2 * AT_ONCE, "only what was under way at a kill is fetched again"


def pages_of(site: CountingSite) -> dict[str, str]:
    """The paths of all pages, and their steps."""
    return {f"/page/{n}": step_name(f"{site.url}/page/{n}") for n in range(PAGES)}


async def steps(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        return set(await connection.scalars(text("SELECT name FROM run_steps")))
