"""Prove that what was accepted is done, and that vectors stay: python scripts/verify_persistence.py

Starts a system of its own, kills the API after it has accepted a run, API and worker in the middle of it and after it,
and ends with 0 if every text is there once and is found.
"""

from __future__ import annotations

import asyncio
from typing import Any

from system import System, fresh_system, prove

from runledger_client import Client

COLLECTION = "verification"
TEXTS = [f"Note {n} of the keeper: the lamp was lit at {n % 24} o'clock." for n in range(999)]
SOUP = "Onions are fried slowly in butter before the broth is added to the soup."


async def verify(system: System) -> None:
    async with system.client() as client:
        await system.start_api()
        run = await client.submit("embed_texts", {"collection": COLLECTION, "texts": [*TEXTS, SOUP]})
        system.kill()
        prove("the API was killed after it had accepted a run that no worker had begun", True)

        system.start_worker()
        await system.start_api()
        prove("the run is there", (await client.get(run.id)).id == run.id)
        async for event in client.stream(run.id):
            if event.type == "step":
                await system.crash()
                break
        stored = await client.result(run.id, timeout=60)
        prove("API and worker were killed after a step, and every text is stored", stored["stored"] == len(TEXTS) + 1)
        prove("the recipe is found by what it means", await found(client) == SOUP)

        await system.crash()
        prove("and found again after another crash", await found(client) == SOUP)
        everything = await search(client, "the lamp", limit=100)
        prove("each text once", len({item["text"] for item in everything}) == len(everything) == 100)


async def found(client: Client) -> str:
    [nearest] = await search(client, "how to cook with vegetables", limit=1)
    return nearest["text"]


async def search(client: Client, query: str, *, limit: int) -> list[dict[str, Any]]:
    run = await client.submit("search_texts", {"collection": COLLECTION, "query": query, "limit": limit})
    return (await client.result(run.id, timeout=60))["items"]


if __name__ == "__main__":
    with fresh_system() as system:
        asyncio.run(verify(system))
