"""The roadmap document's system, end to end by HTTP: API, workers and the stubs of others, each a process."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.eventually import eventually
from tests.support.processes import api_process
from tests.support.stage import Stage, staged

from app.config import Settings

SECRET = {"X-ROADMAP-AI-SECRET": "dev-secret"}


@pytest.fixture
async def stage(settings: Settings, engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(settings, engine, tmp_path) as stage:
        yield stage


@pytest.fixture
async def api(settings: Settings, stage: Stage) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        api_process(settings, stage.log) as (url, _),
        httpx2.AsyncClient(base_url=url, timeout=30, headers=SECRET) as client,
    ):
        yield client


async def submit(api: httpx2.AsyncClient, action: str) -> str:
    answer = await api.post("/actions/run", json={"action": action, "params": {}})
    assert answer.status_code == 202, answer.text
    return answer.json()["run_id"]


async def end_of(api: httpx2.AsyncClient, run_id: str) -> dict[str, Any]:
    async def ended() -> dict[str, Any] | None:
        run = (await api.get(f"/actions/run/{run_id}")).json()
        return run if run["status"] in ("success", "failed", "cancelled") else None

    run = await eventually(ended, within=120)
    assert run is not None
    return run


async def test_the_documents_curl_syncs_the_backlog(api: httpx2.AsyncClient, stage: Stage) -> None:
    with stage.worker():
        run = await end_of(api, await submit(api, "sync_backlog"))
    assert (run["status"], run["result"]["added"], run["result"]["invalid"]) == ("success", 23, 1)
    assert run["result"]["invalid_rows"][0]["row"] == 14
    assert await stage.calls("path") == {"A:ZZ": 1}


async def test_10000_items_are_synced_scored_and_written_with_progress(api: httpx2.AsyncClient, stage: Stage) -> None:
    with stage.worker(BACKLOG_SHEET="demo-10000"):
        run = await end_of(api, await submit(api, "full_sync"))
        assert (run["status"], run["progress"]["percent"]) == ("success", 100), run
        synced, scored, written = (each["result"] for each in run["result"])
        assert (synced["added"], synced["invalid"]) == (9990, 10)
        assert (scored["scored"], scored["changed"]) == (9990, 9990)
        assert written == {"rows": 10_000, "cells_written": 2 * 9990 + 2}
        # Two reads, a look at what would be written over, and a request for each 500 rows.
        assert await stage.calls("path") == {"A:ZZ": 2, "demo-10000": 1, "values:batchUpdate": 21}
        for child in run["result"]:
            events = (await api.get(f"/runs/{child['run_id']}")).json()
            assert events["progress"]["percent"] == 100
        again = await end_of(api, await submit(api, "full_sync"))
    synced, scored, written = (each["result"] for each in again["result"])
    assert (synced["unchanged"], scored["changed"], written["cells_written"]) == (9990, 0, 0)
    assert (await stage.calls("path"))["values:batchUpdate"] == 21


async def test_a_worker_killed_between_steps_pays_for_nothing_twice(api: httpx2.AsyncClient, stage: Stage) -> None:
    more = {"BACKLOG_SHEET": "demo-1500", "CRASH_CAP": "20"}
    run_id = await submit(api, "full_sync")
    for steps in (1, 3, 6, 9, 13):
        await stage.kill_a_worker(stage.stored(steps), **more)
    with stage.worker(**more):
        run = await end_of(api, run_id)
    assert run["status"] == "success", run
    made = await stage.calls("path")
    # Every attempt to write looks where the rows are now; what is written by then is not written again.
    assert made["values:batchUpdate"] == 4
    assert 2 <= made["A:ZZ"] <= 7
    children = (await api.get(f"/runs?parent_id={run_id}")).json()["items"]
    assert len(children) == 3
    synced, scored, _ = (each["result"] for each in run["result"])
    assert (synced["items"], scored["scored"]) == (1498, 1498)


async def test_a_chunk_that_was_classified_is_not_paid_again_when_the_worker_dies_in_the_next(
    api: httpx2.AsyncClient, stage: Stage
) -> None:
    sheet = stage.folder / "backlog.csv"
    items = [[f"A-{number:02}", f"Item {number}"] for number in range(60)]
    items[30][1] = "Item [stub:anthropic:slow x1]"
    with sheet.open("w", newline="") as file:
        csv.writer(file).writerows([["Key", "Title"], *items])
    with stage.worker(BACKLOG_SHEET=str(sheet)) as worker:
        assert (await end_of(api, await submit(api, "sync_backlog")))["status"] == "success"
        run_id = await submit(api, "enrich_items")
        await stage.asked("messages", times=2, by="path")()
        worker.kill()
        worker.wait()
    with stage.worker(BACKLOG_SHEET=str(sheet)):
        run = await end_of(api, run_id)
    assert (run["status"], run["attempt"], run["result"]["classified"]) == ("success", 2, 60)
    # The first chunk once, the second again after the worker died in it, the third once.
    assert await stage.calls("path") == {"messages": 4}
