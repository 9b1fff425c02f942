"""Streams over real sockets: cut again and again, and one for all runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.processes import api_process, worker_process

from app.config import Settings


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "processes.log"


@pytest.fixture
async def api(settings: Settings, log: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with api_process(settings, log) as (url, _), httpx2.AsyncClient(base_url=url, timeout=30) as client:
        yield client


async def listen(api: httpx2.AsyncClient, path: str, **headers: str) -> AsyncGenerator[tuple[str, str, Any]]:
    """The events of a stream: id, name, data."""
    async with api.sse(path, headers=headers) as source:
        assert source.response.headers["content-type"].startswith("text/event-stream")
        assert source.response.headers["x-accel-buffering"] == "no"
        async for sent in source:
            if sent.data:
                yield sent.id, sent.event, json.loads(sent.data)


async def test_a_client_that_is_cut_ten_times_sees_every_event_once(
    api: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    body = {"action": "count_words", "params": {"text": "a b c d e f g h i j"}}
    run = (await api.post("/runs", json=body)).json()
    seen: list[int] = []
    end: Any = None
    connections = 0
    with worker_process(settings, log):
        while end is None:
            connections += 1
            stream = listen(api, run["links"]["events"], **({"last-event-id": str(seen[-1])} if seen else {}))
            async with contextlib.aclosing(stream):
                _, first, _ = await anext(stream)
                assert first == "snapshot"
                async for id_, name, data in stream:
                    if name == "end":
                        end = data
                        break
                    seen.append(int(id_))
                    if connections <= 10:
                        break
    assert connections == 11
    assert seen == list(range(1, end["last_seq"] + 1))
    assert (end["state"], end["result"]["total"]) == ("succeeded", 10)
    again = await api.get(run["links"]["events"], headers={"last-event-id": str(seen[-1])})
    assert again.status_code == 204


async def test_one_stream_tells_the_changes_of_all_runs(api: httpx2.AsyncClient, settings: Settings, log: Path) -> None:
    old = (await api.post("/runs", json={"action": "echo", "params": {"message": "x"}, "tags": ["a"]})).json()
    async with contextlib.aclosing(listen(api, "/events?topics=runs&tag=a")) as stream:
        _, name, snapshot = await anext(stream)
        assert (name, [run["id"] for run in snapshot["items"]]) == ("snapshot", [old["id"]])
        assert "params" not in snapshot["items"][0]
        other = (await api.post("/runs", json={"action": "echo", "params": {"message": "x"}})).json()
        new = (await api.post("/runs", json={"action": "echo", "params": {"message": "x"}, "tags": ["a"]})).json()
        states: dict[str, str] = {}
        with worker_process(settings, log):
            async for _, name, data in stream:
                for run in data["items"] if name == "snapshot" else [data]:
                    states[run["id"]] = run["state"]
                if states == {old["id"]: "succeeded", new["id"]: "succeeded"}:
                    break
    assert other["id"] not in states


async def test_an_administrator_watches_queues_and_workers_as_they_are_listed(
    api: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    await api.post("/runs", json={"action": "echo", "params": {"message": "x"}, "queue": "quiet"})
    async with contextlib.aclosing(listen(api, "/events?topics=queues,workers")) as stream:
        told = {name: data for _, name, data in [await anext(stream), await anext(stream)]}
        assert told["workers"] == {"items": []}
        assert [queue["queued"] for queue in told["queues"]["items"] if queue["name"] == "quiet"] == [1]
        await api.post("/queues/quiet/pause", json={"reason": "for a test"})
        async for _, name, data in stream:
            paused = [queue["paused"] for queue in data["items"] if queue.get("name") == "quiet"]
            if name == "queues" and paused[0] is not None:
                break
        assert paused[0]["reason"] == "for a test"
        with worker_process(settings, log):
            async for _, name, data in stream:
                # It is there a moment before it says what it is.
                if name == "workers" and [worker["concurrency"] for worker in data["items"]] == [10]:
                    break
