"""Replaying runs, and changing many at once: itself a run that survives its worker."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx2
import pytest
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.runs import bulk
from app.runs.bulk import Hands
from app.runs.context import Run
from app.runs.intake import Intake
from app.runs.schemas import BulkDone, BulkRuns

PAGE = 3


@pytest.fixture(autouse=True)
def actions(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PAGE", PAGE)

    @workshop.action()
    async def echo(message: str) -> str:
        return message

    @workshop.action(retry=Retry(max_attempts=1))
    async def fail() -> None:
        raise ValueError("no luck")

    @workshop.action("bulk_runs", retry=Retry(base=0))
    async def bulk_runs(run: Run, asked: BulkRuns) -> BulkDone:
        async with contextlib.aclosing(Intake(workshop.engine, timeout=5)) as intake:
            hands = Hands(workshop.engine, workshop.queue.job_manager, workshop.action, intake)
            return await bulk.perform(run, asked, hands)


async def submit(api: httpx2.AsyncClient, action: str = "echo", **more: Any) -> dict[str, Any]:
    params = {"message": "hi"} if action == "echo" else {}
    return (await api.post("/runs", json={"action": action, "params": params, **more})).json()


async def states(workshop: Workshop) -> dict[str, int]:
    rows = await workshop.fetch(
        "SELECT state, count(*) FROM action_runs WHERE action <> 'bulk_runs' GROUP BY state ORDER BY state"
    )
    return {row["state"]: row["count"] for row in rows}


async def test_a_replay_is_a_new_run_that_names_the_old_one(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    old = await submit(api, tags=["t"], priority=3, lock="l")
    await workshop.drain()
    answer = await api.post(old["links"]["replay"])
    new = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, new["links"]["self"])
    assert (new["replay_of"], new["state"]) == (old["id"], "queued")
    same = ("action", "params", "queue", "priority", "lock", "tags")
    assert [new[name] for name in same] == [old[name] for name in same]


async def test_a_replay_with_edited_params_is_judged_like_any_other(api: httpx2.AsyncClient) -> None:
    old = await submit(api)
    edited = await api.post(old["links"]["replay"], json={"params": {"message": "other"}})
    assert edited.json()["params"] == {"message": "other"}
    wrong = await api.post(old["links"]["replay"], json={"params": {"message": 7}})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/params/message")
    missing = await api.post("/runs/run_20200101T000000Z_00000000/replay")
    assert missing.json()["type"] == "/problems/run-not-found"


async def test_a_replay_sent_again_with_its_key_is_the_same_run(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    old, other = await submit(api), await submit(api)
    first, again = [await api.post(old["links"]["replay"], headers={"idempotency-key": "k"}) for _ in range(2)]
    assert first.json()["id"] == again.json()["id"]
    answer = await api.post(other["links"]["replay"], headers={"idempotency-key": "k"})
    assert answer.json()["type"] == "/problems/idempotency-key-reused"


async def test_a_run_that_sql_made_odd_is_replayed_or_refused_but_breaks_nothing(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    await workshop.execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args, lock) "
        "VALUES ('a queue', 'echo', '{\"message\": \"x\"}', repeat('l', 300)), ('q', 'gone', '[1]', NULL)"
    )
    gone, odd = (await api.get("/runs")).json()["items"]
    assert (await api.post(odd["links"]["replay"])).status_code == 202
    assert (await api.post(gone["links"]["replay"])).json()["type"] == "/problems/unknown-action"


async def change(api: httpx2.AsyncClient, workshop: Workshop, **asked: Any) -> dict[str, Any]:
    answer = await api.post("/runs/bulk", json=asked)
    assert answer.status_code == 202, answer.text
    run = (await api.get(answer.headers["location"])).json()
    assert run["action"] == "bulk_runs"
    await workshop.drain(concurrency=1)
    return (await api.get(answer.headers["location"])).json()


async def test_a_dry_run_counts_and_does_nothing(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    runs = [await submit(api) for _ in range(4)]
    for which in ({"filter": {"state": "queued"}}, {"ids": [run["id"] for run in runs]}):
        answer = await api.post("/runs/bulk", json={"op": "cancel", "dry_run": True, **which})
        assert (answer.status_code, answer.json()) == (200, {"matched": 4})
    assert await states(workshop) == {"queued": 4}


async def test_what_cannot_be_an_idempotency_key_is_refused_by_a_dry_run_too(api: httpx2.AsyncClient) -> None:
    asked = {"op": "cancel", "dry_run": True, "filter": {"state": "queued"}}
    answer = await api.post("/runs/bulk", json=asked, headers={"Idempotency-Key": "k" * 256})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-idempotency-key")


async def test_what_fits_a_filter_is_retried_page_by_page_with_progress(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    for _ in range(2 * PAGE + 1):
        await submit(api, "fail")
    await submit(api)
    await workshop.drain()
    done = await change(api, workshop, op="retry", filter={"state": "failed"})
    assert done["result"] == {"matched": 7, "done": 7, "refused": 0}
    assert done["progress"]["percent"] == 100
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE action = 'fail' AND attempt = 2") == 7


async def test_what_cannot_be_done_is_counted_and_stops_nothing(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    ended = await submit(api)
    await workshop.drain()
    waiting = [await submit(api, schedule_at="2999-01-01T00:00:00Z") for _ in range(4)]
    ids = [ended["id"], "run_20200101T000000Z_00000000", *(run["id"] for run in waiting)]
    done = await change(api, workshop, op="cancel", ids=ids)
    assert done["result"] == {"matched": 5, "done": 4, "refused": 2}
    assert await states(workshop) == {"cancelled": 4, "succeeded": 1}


async def test_a_bulk_run_whose_attempt_failed_goes_on_and_replays_nothing_twice(
    api: httpx2.AsyncClient, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        await submit(api)
    await workshop.drain()
    replays, change_one = 0, bulk._Bulk._change_one

    async def break_off(self: bulk._Bulk, run_id: str) -> None:
        nonlocal replays
        await change_one(self, run_id)
        replays += 1
        if replays == PAGE + 1:
            raise ConnectionError("in the middle of the second page, and its first replay is stored")

    monkeypatch.setattr(bulk._Bulk, "_change_one", break_off)
    answer = await api.post("/runs/bulk", json={"op": "replay", "filter": {"action": "echo"}})
    await workshop.drain_all()
    run = (await api.get(answer.headers["location"])).json()
    assert (run["attempt"], run["result"]) == (2, {"matched": 5, "done": 5, "refused": 0})
    assert await workshop.value("SELECT count(DISTINCT replay_of) FROM action_runs") == 5
    assert await states(workshop) == {"succeeded": 10}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"op": "cancel"}, ""),
        ({"op": "cancel", "ids": [], "filter": {}}, "/ids"),
        ({"op": "delete", "filter": {}}, "/op"),
        ({"op": "retry", "filter": {"stat": "failed"}}, "/filter/stat"),
        ({"op": "retry", "ids": ["x"]}, "/ids/0"),
    ],
)
async def test_a_bulk_that_is_none_is_refused_whole(
    api: httpx2.AsyncClient, workshop: Workshop, body: dict[str, Any], pointer: str
) -> None:
    answer = await api.post("/runs/bulk", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert await workshop.value("SELECT count(*) FROM action_runs") == 0
