"""Reading a run again and again, cheaply: versions, waiting for the next one, results; and pages that lead on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.runs import service


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def echo(message: str) -> str:
        return message

    @workshop.action()
    async def sleep(seconds: float, message: str | None) -> None: ...

    @workshop.action(retry=Retry(max_attempts=1))
    async def fail() -> None:
        raise ValueError("no luck")


async def submit(api: httpx2.AsyncClient, action: str = "echo", **params: Any) -> str:
    body = {"action": action, "params": params or ({"message": "hi"} if action == "echo" else {})}
    return (await api.post("/runs", json=body)).headers["location"]


async def test_who_has_the_version_is_told_so_and_nothing_more(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    url = await submit(api)
    first = await api.get(url)
    assert (first.headers["cache-control"], first.headers["vary"]) == ("private, no-cache", "Prefer")
    same = await api.get(url, headers={"if-none-match": f'"x", {first.headers["etag"]}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    assert same.headers["retry-after"] == "1"
    await workshop.drain()
    changed = await api.get(url, headers={"if-none-match": first.headers["etag"]})
    assert (changed.status_code, changed.json()["state"]) == (200, "succeeded")
    assert changed.headers["etag"] != first.headers["etag"]


async def test_with_its_traceback_a_run_is_another_representation(api: httpx2.AsyncClient) -> None:
    url = await submit(api)
    tag = (await api.get(url)).headers["etag"]
    answer = await api.get(url, params={"include": "traceback"}, headers={"if-none-match": tag})
    assert answer.status_code == 200


async def waiting(api: httpx2.AsyncClient, workshop: Workshop, url: str, **headers: str) -> asyncio.Task[Any]:
    """A long poll that has begun to wait."""
    lookout = api._transport.app.state.services.lookout  # type: ignore[attr-defined]
    poll = asyncio.create_task(api.get(url, headers={"prefer": "wait=20", **headers}))

    async def waits() -> bool:
        return bool(lookout._watched)

    await eventually(waits)
    return poll


async def test_a_long_poll_without_a_version_is_answered_at_the_end(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    url = await submit(api)
    poll = await waiting(api, workshop, url)
    await workshop.drain()
    answer = await poll
    assert (answer.json()["state"], answer.headers["preference-applied"]) == ("succeeded", "wait=20")


async def test_a_long_poll_with_a_version_is_answered_when_that_has_passed(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    url = await submit(api)
    tag = (await api.get(url)).headers["etag"]
    poll = await waiting(api, workshop, url, **{"if-none-match": tag})
    await workshop.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    assert (await poll).json()["state"] == "running"
    at_once = await api.get(url, headers={"if-none-match": tag, "prefer": "wait=20"})
    assert at_once.json()["state"] == "running"


async def test_a_long_poll_that_waited_in_vain_says_how_it_is(api: httpx2.AsyncClient) -> None:
    url = await submit(api)
    tag = (await api.get(url)).headers["etag"]
    assert (await api.get(url, headers={"prefer": "wait=0"})).status_code == 200
    assert (await api.get(url, headers={"prefer": "wait=0", "if-none-match": tag})).status_code == 304


async def test_a_result_is_what_was_returned_and_until_then_a_problem(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    url, failing = await submit(api), await submit(api, "fail")
    early = await api.get(f"{url}/result")
    assert (early.status_code, early.json()["type"]) == (409, "/problems/run-not-finished")
    assert (early.headers["retry-after"], early.json()["state"]) == ("1", "queued")
    await workshop.drain()
    assert (await api.get(f"{url}/result")).json() == "hi"
    failed = await api.get(f"{failing}/result")
    assert (failed.status_code, failed.json()["type"]) == (409, "/problems/no-result")
    assert failed.json()["error"]["detail"] == "no luck"


async def test_a_result_that_was_deleted_with_its_run_is_gone(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    old = "run_20200101T000000Z_00000001"
    await submit(api)
    await workshop.drain()
    await workshop.execute(
        "UPDATE action_runs SET id = :old, created_at = '2020-01-01 UTC', finished_at = '2020-01-01 UTC'", old=old
    )
    young, old = await submit(api), f"/runs/{old}"
    assert (await api.get(f"{old}/result")).json() == "hi"
    assert await service.prune(workshop.engine, older_than=timedelta(days=30)) == 1
    gone = await api.get(f"{old}/result")
    assert (gone.status_code, gone.json()["type"]) == (410, "/problems/result-expired")
    assert "30 days after their end" in gone.json()["detail"]
    assert (await api.get(old)).json()["type"] == "/problems/run-not-found"
    # What is so young was not deleted: there has been none.
    assert (await api.get(f"{other(young)}/result")).json()["type"] == "/problems/run-not-found"


def other(url: str) -> str:
    """The URL of a run of the same second that there is not."""
    return url[:-1] + ("0" if url[-1] != "0" else "1")


async def test_the_link_of_a_page_leads_to_the_next_with_the_same_filters(api: httpx2.AsyncClient) -> None:
    urls = [await submit(api) for _ in range(5)]
    await submit(api, "fail")
    seen: list[str] = []
    path: str | None = "/runs?action=echo&limit=2&q=HI"
    while path is not None:
        page = await api.get(path)
        seen += [run["links"]["self"] for run in page.json()["items"]]
        path = page.links["next"]["url"] if "next" in page.links else None
    assert seen == urls[::-1]


@pytest.mark.parametrize(("path", "item"), [("/runs?action=echo&limit=2&q=HI", "/runs"), ("/jobs?limit=2", "/jobs")])
async def test_the_links_of_pages_lead_there_and_back(api: httpx2.AsyncClient, path: str, item: str) -> None:
    body = {"/runs": {"action": "echo", "params": {"message": "hi"}}, "/jobs": {"message": "hi"}}[item]
    for _ in range(5):
        await api.post(item, json=body)
    there = [await api.get(path)]
    assert "prev" not in there[0].links
    while "next" in there[-1].links:
        there.append(await api.get(there[-1].links["next"]["url"]))
    back = [there[-1]]
    while "prev" in back[-1].links:
        back.append(await api.get(back[-1].links["prev"]["url"]))
    assert len(there) == 3
    assert [page.json() for page in back[::-1]] == [page.json() for page in there]
    again = await api.get(back[-1].links["next"]["url"])
    assert again.json() == there[1].json()


async def test_the_way_back_has_what_has_come_meanwhile(api: httpx2.AsyncClient) -> None:
    urls = [await submit(api) for _ in range(4)]
    first = await api.get("/runs?limit=2")
    second = await api.get(first.links["next"]["url"])
    urls.append(await submit(api))
    back = await api.get(second.links["prev"]["url"])
    assert back.json()["items"] == first.json()["items"]
    newer = (await api.get(back.links["prev"]["url"])).json()
    assert ([run["links"]["self"] for run in newer["items"]], newer["prev"]) == (urls[4:], None)


async def test_a_total_is_told_to_who_asks_for_it_on_each_page(api: httpx2.AsyncClient) -> None:
    for _ in range(5):
        await submit(api)
    await submit(api, "fail")
    assert (await api.get("/runs")).json()["total_estimated"] is None
    first = await api.get("/runs?limit=2&action=echo&count=estimated")
    second = await api.get(first.links["next"]["url"])
    assert [page.json()["total_estimated"] for page in (first, second)] == [5, 5]


@pytest.mark.parametrize("cursor", ["x", "AAAA", "gAAAAAAAAAAA", "é", "A" * 64])
async def test_a_cursor_that_is_none_is_400(api: httpx2.AsyncClient, cursor: str) -> None:
    answer = await api.get("/runs", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-cursor")


@pytest.mark.parametrize("cursor", ["AAAAAAAAAAA", "f_________8", "gAAAAAAAAAA", "__________8"])
async def test_a_cursor_at_the_end_of_all_numbers_is_a_page(api: httpx2.AsyncClient, cursor: str) -> None:
    await submit(api)
    assert (await api.get("/runs", params={"cursor": cursor})).status_code == 200


@pytest.mark.parametrize(
    "query", ["since=yesterday", "until=2026-01-01T00:00:00", "q=", "q=%00", "stat=failed", "count=exact"]
)
async def test_a_filter_that_is_none_is_422_and_named(api: httpx2.AsyncClient, query: str) -> None:
    answer = await api.get(f"/runs?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == query.split("=")[0]
