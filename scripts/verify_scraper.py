"""Prove that a crawl survives two crashes of API and worker: python scripts/verify_scraper.py

Starts a system of its own and a site on loopback, kills both processes twice in the middle of a crawl, and ends with 0
if nothing was lost and nothing that was stored was fetched again.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from sites import CountingSite
from system import System, fresh_system, prove

from app.domain.scraping.site import AT_ONCE, step_name
from runledger_client import Client

PAGES = 80
CRASHES = (15, 45)
"""After so many steps."""


async def verify(system: System, site: CountingSite) -> None:
    system.start_worker()
    await system.start_api()
    async with system.client() as client:
        run = await client.submit("scrape_site", {"url": site.start, "pages_per_second": 25})
        told, fetched_before = await follow(system, client, run.id, site)
        ended = await client.get(run.id)
    prove(f"API and worker were killed {len(CRASHES)} times, and the run has succeeded", ended.state == "succeeded")
    prove(f"all {PAGES} pages were read", len(ended.result["pages"]) == PAGES)
    prove("one stream told each step once, across the crashes", set(told.values()) == {1})
    again = [path for path, visits in fetched_before.items() if site.visits[path] != visits]
    prove(f"none of {len(fetched_before)} pages stored before a crash was fetched again", not again)
    visits = sum(site.visits[f"/page/{n}"] for n in range(PAGES))
    prove(f"{visits} requests for {PAGES} pages", visits - PAGES <= AT_ONCE * len(CRASHES))


async def follow(
    system: System, client: Client, run_id: str, site: CountingSite
) -> tuple[Counter[str], dict[str, int]]:
    """Watch the run to its end, with crashes: how often each step was told, and the visits of what was stored then."""
    paths = {step_name(f"{site.url}/page/{n}"): f"/page/{n}" for n in range(PAGES)}
    told, fetched = Counter[str](), dict[str, int]()
    async for event in client.stream(run_id):
        if event.type != "step":
            continue
        told[event.data["name"]] += 1
        if told.total() in CRASHES:
            await system.crash()
            fetched |= {paths[step]: site.visits[paths[step]] for step in told if step in paths}
    return told, fetched


if __name__ == "__main__":
    with fresh_system() as system, CountingSite(PAGES) as site:
        asyncio.run(verify(system, site))
