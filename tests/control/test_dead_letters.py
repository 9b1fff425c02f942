"""Dead letters: failures by likeness, and what is done with all that are alike."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from tests.support.workshop import Workshop

from app.control import dead_letters
from app.engine.retry import Retry
from app.runs.schemas import RunCreate

FAILING = {"now": True}


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    FAILING["now"] = True

    @workshop.action(retry=Retry(max_attempts=1))
    async def fetch(page: str, kind: str = "value") -> str:
        if not FAILING["now"]:
            return page
        match kind:
            case "value":
                raise ValueError(f"page {page} of 'orders' has 12 rows, not 13")
            case _:
                raise KeyError(page)

    @workshop.action(retry=Retry(max_attempts=1))
    async def other() -> None:
        raise ValueError("page 1 of 'orders' has 12 rows, not 13")


async def letters(api: httpx2.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await api.get("/dead-letters", params=query)
    assert answer.status_code == 200
    return answer.json()["items"]


async def failed(workshop: Workshop, *pages: str, **options: Any) -> list[str]:
    runs = [
        await workshop.request(RunCreate(action="fetch", params={"page": page, **options.pop("params", {})}, **options))
        for page in pages
    ]
    await workshop.drain()
    return [run.id for run in runs]


async def test_failures_that_differ_in_numbers_ids_and_quoted_names_are_alike(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    first, second, third = await failed(workshop, "7", "run_20251222T101500Z_ab12cd34", "7f9c-22")
    [letter] = await letters(api)
    assert (letter["action"], letter["count"], letter["run_id"]) == ("fetch", 3, third)
    assert letter["error"]["title"] == "Value error"
    runs = [(await workshop.get(run)).finished_at for run in (first, second, third)]
    seen = [letter["first_seen"], letter["last_seen"]]
    assert seen == [time.isoformat().replace("+00:00", "Z") for time in (min(runs), max(runs))]  # type: ignore[type-var,union-attr]


async def test_failures_of_another_action_or_another_kind_are_not(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.submit("other")
    await failed(workshop, "1")
    await failed(workshop, "1", params={"kind": "key"})
    found = await letters(api)
    assert sorted((letter["action"], letter["error"]["type"]) for letter in found) == [
        ("fetch", "/problems/key"), ("fetch", "/problems/value"), ("other", "/problems/value")
    ]  # fmt: skip
    assert [letter["action"] for letter in await letters(api, action="other")] == ["other"]
    assert len(await letters(api, limit=1)) == 1


async def test_what_succeeds_is_retried_or_was_cancelled_is_no_dead_letter(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    FAILING["now"] = False
    await failed(workshop, "1")
    cancelled = await workshop.submit("fetch", page="2")
    await api.post(f"/runs/{cancelled.id}/cancel")
    assert await letters(api) == []


async def test_a_group_is_retried_and_leaves_the_list(
    api: httpx2.AsyncClient, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "BATCH", 2)
    runs = await failed(workshop, *(str(number) for number in range(5)))
    [other] = await failed(workshop, "1", params={"kind": "key"})
    letter = next(letter for letter in await letters(api) if letter["count"] == 5)
    answer = await api.post(f"/dead-letters/{letter['fingerprint']}/retry")
    assert answer.json() == {"done": 5, "skipped": 0, "more": False}
    FAILING["now"] = False
    await workshop.drain()
    assert {(await workshop.get(run)).state.value for run in runs} == {"succeeded"}
    assert [left["run_id"] for left in await letters(api)] == [other]


async def test_what_fails_again_is_a_dead_letter_again(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    [run] = await failed(workshop, "1")
    [letter] = await letters(api)
    for ask in ("discard", "retry"):
        if ask == "discard":
            await api.post(f"/dead-letters/{letter['fingerprint']}/discard")
            await api.post(f"/runs/{run}/retry")
        else:
            await api.post(f"/dead-letters/{letter['fingerprint']}/retry")
        assert await letters(api) == []
        await workshop.drain()
        assert [again["fingerprint"] for again in await letters(api)] == [letter["fingerprint"]]


async def test_a_group_is_discarded_and_its_runs_stay(
    api: httpx2.AsyncClient, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "BATCH", 2)
    runs = await failed(workshop, "1", "2", "3")
    [letter] = await letters(api)
    answer = await api.post(f"/dead-letters/{letter['fingerprint']}/discard")
    assert answer.json() == {"done": 3, "skipped": 0, "more": False}
    assert await letters(api) == []
    assert {(await workshop.get(run)).state.value for run in runs} == {"failed"}
    assert (await api.post(f"/dead-letters/{letter['fingerprint']}/discard")).status_code == 404


async def test_a_run_whose_queueing_lock_is_taken_does_not_hold_up_the_others(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    [locked] = await failed(workshop, "1", queueing_lock="one")
    runs = await failed(workshop, "2", "3")
    await workshop.request(RunCreate(action="fetch", params={"page": "4"}, queueing_lock="one"))
    [letter] = await letters(api)
    answer = await api.post(f"/dead-letters/{letter['fingerprint']}/retry")
    assert answer.json() == {"done": 2, "skipped": 1, "more": False}
    assert (await workshop.get(locked)).state == "failed"
    assert {(await workshop.get(run)).state.value for run in runs} == {"retrying"}


async def test_more_than_one_request_sees_to_is_told(
    api: httpx2.AsyncClient, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "BATCH", 1)
    monkeypatch.setattr(dead_letters, "BATCHES", 2)
    await failed(workshop, "1", "2", "3")
    [letter] = await letters(api)
    assert (await api.post(f"/dead-letters/{letter['fingerprint']}/discard")).json()["more"] is True
    assert (await api.post(f"/dead-letters/{letter['fingerprint']}/discard")).json() == {
        "done": 1, "skipped": 0, "more": False
    }  # fmt: skip


async def test_every_group_is_on_one_page_in_order(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    for kind in ("red", "green", "blue", "grey", "white"):
        await workshop.execute(f"""
            INSERT INTO action_runs (id, job_id, action, params, state, queue, priority, fingerprint, finished_at)
            SELECT 'run_20260101T000000Z_' || substr(md5('{kind}'), 1, 8), nextval('procrastinate_jobs_id_seq'),
                   '{kind}', '{{}}', 'failed', 'default', 0, md5('{kind}'),
                   timestamptz '2026-01-01T00:00:00Z' + length('{kind}') * interval '1 h'
        """)
    whole = (await api.get("/dead-letters")).json()
    assert (len(whole["items"]), whole["next"]) == (5, None)
    paged, query = [], {"limit": 2}
    while query.get("cursor", "") is not None:
        page = (await api.get("/dead-letters", params=query)).json()
        paged += page["items"]
        query = {"limit": 2, "cursor": page["next"]}
    assert paged == whole["items"]
    assert (await api.get("/dead-letters?cursor=x")).json()["type"] == "/problems/invalid-cursor"


@pytest.mark.parametrize(("fingerprint", "status"), [("0" * 32, 404), ("nothing", 422), ("A" * 32, 422)])
async def test_a_fingerprint_that_there_is_not_is_told(api: httpx2.AsyncClient, fingerprint: str, status: int) -> None:
    for ask in ("retry", "discard"):
        assert (await api.post(f"/dead-letters/{fingerprint}/{ask}")).status_code == status
