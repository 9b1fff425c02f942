"""What the stream of all runs refuses."""

from __future__ import annotations

import httpx2
import pytest


@pytest.mark.parametrize("topics", ["queues", "workers", "runs,queues"])
async def test_who_is_no_administrator_watches_runs_only(api: httpx2.AsyncClient, topics: str) -> None:
    answer = await api.get(f"/events?topics={topics}", headers={"X-ROADMAP-AI-SECRET": "dev-secret"})
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden")


@pytest.mark.parametrize("query", ["topics=", "topics=runs,locks", "topic=runs", "tag=%00"])
async def test_a_topic_that_is_none_is_422(api: httpx2.AsyncClient, query: str) -> None:
    answer = await api.get(f"/events?{query}")
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-input")
