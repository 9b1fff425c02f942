"""The roadmap document's system, end to end by HTTP: API, workers and the stubs of others, each a process."""

from __future__ import annotations

import contextlib
import csv
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.eventually import eventually
from tests.support.processes import api_process, environment, free_port, running, worker_process

from app.config import Settings

SECRET = {"X-ROADMAP-AI-SECRET": "dev-secret"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "processes.log"


@pytest.fixture
async def api(settings: Settings, log: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        api_process(settings, log) as (url, _),
        httpx2.AsyncClient(base_url=url, timeout=30, headers=SECRET) as client,
    ):
        yield client


@pytest.fixture
async def stubs(settings: Settings, log: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """The stubs' process, which outlives the workers."""
    port = free_port()
    with running("-m", "app.outbound.stubs", str(port), env=environment(settings), log=log):
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def answers() -> bool:
                with contextlib.suppress(httpx2.TransportError):
                    return (await client.get("/calls")).is_success
                return False

            await eventually(answers, within=60)
            yield client


async def calls(stubs: httpx2.AsyncClient) -> Counter[str]:
    """How often what was asked for, by the last word of its path."""
    return Counter(call["path"].rpartition("/")[2] for call in (await stubs.get("/calls")).json())


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


def steps(engine: AsyncEngine, least: int) -> Callable[[], Awaitable[bool]]:
    async def are_stored() -> bool:
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT count(*) >= :least FROM run_steps"), {"least": least})

    return are_stored


async def test_the_documents_curl_syncs_the_backlog(
    api: httpx2.AsyncClient, stubs: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    with worker_process(settings, log, STUBS_URL=str(stubs.base_url)):
        run = await end_of(api, await submit(api, "sync_backlog"))
    assert (run["status"], run["result"]["added"], run["result"]["invalid"]) == ("success", 23, 1)
    assert run["result"]["invalid_rows"][0]["row"] == 14
    assert await calls(stubs) == {"A:ZZ": 1}


async def test_10000_items_are_synced_scored_and_written_with_progress(
    api: httpx2.AsyncClient, stubs: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    with worker_process(settings, log, STUBS_URL=str(stubs.base_url), BACKLOG_SHEET="demo-10000"):
        run = await end_of(api, await submit(api, "full_sync"))
        assert (run["status"], run["progress"]["percent"]) == ("success", 100), run
        synced, scored, written = (stage["result"] for stage in run["result"])
        assert (synced["added"], synced["invalid"]) == (9990, 10)
        assert (scored["scored"], scored["changed"]) == (9990, 9990)
        assert written == {"rows": 10_000, "cells_written": 2 * 9990 + 2}
        # Two reads, a look at what would be written over, and a request for each 500 rows.
        assert await calls(stubs) == {"A:ZZ": 2, "demo-10000": 1, "values:batchUpdate": 21}
        for stage in run["result"]:
            events = (await api.get(f"/runs/{stage['run_id']}")).json()
            assert events["progress"]["percent"] == 100
        again = await end_of(api, await submit(api, "full_sync"))
    synced, scored, written = (stage["result"] for stage in again["result"])
    assert (synced["unchanged"], scored["changed"], written["cells_written"]) == (9990, 0, 0)
    assert (await calls(stubs))["values:batchUpdate"] == 21


async def test_a_worker_killed_between_steps_pays_for_nothing_twice(
    api: httpx2.AsyncClient, stubs: httpx2.AsyncClient, settings: Settings, engine: AsyncEngine, log: Path
) -> None:
    more = {"STUBS_URL": str(stubs.base_url), "BACKLOG_SHEET": "demo-1500", "CRASH_CAP": "20"}
    run_id = await submit(api, "full_sync")
    for least in (1, 3, 6, 9, 13):
        with worker_process(settings, log, **more) as worker:
            await eventually(steps(engine, least), within=60)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    with worker_process(settings, log, **more):
        run = await end_of(api, run_id)
    assert run["status"] == "success", run
    made = await calls(stubs)
    # Every attempt to write looks where the rows are now; what is written by then is not written again.
    assert made["values:batchUpdate"] == 4
    assert 2 <= made["A:ZZ"] <= 7
    children = (await api.get(f"/runs?parent_id={run_id}")).json()["items"]
    assert len(children) == 3
    synced, scored, _ = (stage["result"] for stage in run["result"])
    assert (synced["items"], scored["scored"]) == (1498, 1498)


async def test_a_chunk_that_was_classified_is_not_paid_again_when_the_worker_dies_in_the_next(
    api: httpx2.AsyncClient, stubs: httpx2.AsyncClient, settings: Settings, tmp_path: Path, log: Path
) -> None:
    sheet = tmp_path / "backlog.csv"
    items = [[f"A-{number:02}", f"Item {number}"] for number in range(60)]
    items[30][1] = "Item [stub:anthropic:slow x1]"
    with sheet.open("w", newline="") as file:
        csv.writer(file).writerows([["Key", "Title"], *items])
    more = {"STUBS_URL": str(stubs.base_url), "BACKLOG_SHEET": str(sheet)}

    async def asked_twice() -> bool:
        return (await calls(stubs))["messages"] == 2

    with worker_process(settings, log, **more) as worker:
        assert (await end_of(api, await submit(api, "sync_backlog")))["status"] == "success"
        run_id = await submit(api, "enrich_items")
        await eventually(asked_twice, within=60)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    with worker_process(settings, log, **more):
        run = await end_of(api, run_id)
    assert (run["status"], run["attempt"], run["result"]["classified"]) == ("success", 2, 60)
    # The first chunk once, the second again after the worker died in it, the third once.
    assert await calls(stubs) == {"messages": 4}
