"""The door `/jobs`: the words of two documents, told apart by their bodies, over the same runs."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any
from unittest.mock import AsyncMock

import httpx2
import pytest
from tests.support.workshop import Workshop

from app import tasks
from app.access.principal import Principal, Scope
from app.engine.retry import Retry
from app.routers import security

HELLO = {"payload": {"task": "hello_world", "data": "test message"}}


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    for name in ("hello_world", "noop", "sleep"):
        workshop.action(name)(inspect.unwrap(tasks.action[name].task.func))

    @workshop.action(retry=Retry(max_attempts=1))
    async def fail() -> None:
        raise ValueError("no luck")


async def test_a_job_with_a_payload_is_told_of_in_its_document_s_words(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    answer = await api.post("/jobs", json=HELLO)
    job_id = answer.json()["job_id"]
    assert (answer.status_code, answer.json()) == (202, {"job_id": job_id, "status": "queued"})
    assert answer.headers["location"] == f"/jobs/{job_id}"
    assert answer.headers["retry-after"] == "1"
    waiting = (await api.get(f"/jobs/{job_id}")).json()
    assert waiting == {"job_id": job_id, "status": "queued", "attempt_count": 0, **HELLO}
    await workshop.drain()
    ended = await api.get(f"/jobs/{job_id}")
    assert ended.json() == {"job_id": job_id, "status": "completed", "attempt_count": 1, **HELLO}
    assert "retry-after" not in ended.headers
    run = (await api.get(ended.headers["link"].partition(">")[0].removeprefix("<"))).json()
    assert (run["id"], run["result"]["data"]) == (job_id, "test message")


async def test_a_payload_without_a_task_is_kept_and_completed(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    job_id = (await api.post("/jobs", json={"payload": {"key": "value"}})).json()["job_id"]
    await workshop.drain()
    job = (await api.get(f"/jobs/{job_id}")).json()
    assert job == {"job_id": job_id, "status": "completed", "attempt_count": 1, "payload": {"key": "value"}}


async def test_a_job_that_failed_says_why(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    job_id = (await api.post("/jobs", json={"payload": {"task": "fail"}})).json()["job_id"]
    await workshop.drain()
    job = (await api.get(f"/jobs/{job_id}")).json()
    assert (job["status"], job["error"]["detail"]) == ("failed", "no luck")


async def test_a_job_that_sleeps_is_told_of_in_its_document_s_words(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    answer = await api.post("/jobs", json={"sleep_seconds": 0, "message": "hello world"})
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert job == {
        "id": job["id"],
        "status": "queued",
        "sleep_seconds": 0,
        "message": "hello world",
        "result": None,
        "created_at": job["created_at"],
    }
    assert (await api.get(f"/jobs/{job['id']}")).json() == job | {"updated_at": job["created_at"]}
    await workshop.drain()
    ended = (await api.get(f"/jobs/{job['id']}")).json()
    assert (ended["status"], ended["result"]) == ("succeeded", {"slept_seconds": 0, "message": "hello world"})
    assert ended["updated_at"] > job["created_at"]


async def test_a_job_that_sleeps_does_so_for_three_seconds_unless_told(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/jobs", json={})
    assert '"sleep_seconds":3,"message":null,"result":null' in answer.text


async def test_a_sleep_that_failed_has_the_error_in_its_result(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    job = (await api.post("/jobs", json={})).json()
    await workshop.execute("UPDATE procrastinate_jobs SET args = '{\"seconds\": -1}'")
    await workshop.drain_all()
    ended = (await api.get(f"/jobs/{job['id']}")).json()
    assert (ended["status"], ended["result"]["error"]["type"]) == ("failed", "/problems/invalid-input")


async def test_the_same_action_is_told_of_in_the_words_in_which_it_was_asked_for(api: httpx2.AsyncClient) -> None:
    by_payload = (await api.post("/jobs", json={"payload": {"task": "sleep", "seconds": 3}})).json()
    by_seconds = (await api.post("/jobs", json={"sleep_seconds": 3})).json()
    assert (await api.get(f"/jobs/{by_payload['job_id']}")).json()["payload"] == {"task": "sleep", "seconds": 3}
    assert (await api.get(f"/jobs/{by_seconds['id']}")).json()["sleep_seconds"] == 3


async def test_the_list_has_the_jobs_that_sleep_newest_first_page_by_page(api: httpx2.AsyncClient) -> None:
    await api.post("/jobs", json=HELLO)
    sent = [(await api.post("/jobs", json={"message": str(n)})).json()["id"] for n in range(5)]
    seen, url = [], "/jobs?limit=2"
    while url:
        page = await api.get(url)
        seen += [job["id"] for job in page.json()]
        url = page.links.get("next", {}).get("url")
    assert seen == sent[::-1]
    assert [job["id"] for job in (await api.get("/jobs")).json()] == seen


async def test_a_run_of_another_door_is_a_job_too(api: httpx2.AsyncClient) -> None:
    run = (await api.post("/runs", json={"action": "hello_world", "params": {"data": 7}})).json()
    job = (await api.get(f"/jobs/{run['id']}")).json()
    assert job["payload"] == {"task": "hello_world", "data": 7}


async def test_a_payload_submitted_again_while_it_waits_is_the_job_that_waits(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    first = (await api.post("/jobs", json=HELLO)).json()["job_id"]
    again = await api.post("/jobs", json=HELLO)
    assert (again.status_code, again.json()) == (200, {"job_id": first, "status": "queued", "duplicate": True})
    assert again.headers["location"] == f"/jobs/{first}"
    assert await workshop.value("SELECT count(*) FROM action_runs") == 1


async def test_a_payload_submitted_by_many_at_once_is_one_job(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    answers = await asyncio.gather(*(api.post("/jobs", json=HELLO) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert sum("duplicate" not in answer.json() for answer in answers) == 1
    assert await workshop.value("SELECT count(*) FROM action_runs") == 1


async def test_what_differs_or_has_begun_is_no_duplicate(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    first = (await api.post("/jobs", json=HELLO)).json()["job_id"]
    other = (await api.post("/jobs", json={"payload": {"task": "hello_world", "data": "other"}})).json()["job_id"]
    await workshop.drain()
    later = (await api.post("/jobs", json=HELLO)).json()
    assert len({first, other, later["job_id"]}) == 3
    assert "duplicate" not in later


async def test_a_replacement_cancels_the_job_that_waits(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    first = (await api.post("/jobs", json=HELLO)).json()["job_id"]
    answer = (await api.post("/jobs", json={**HELLO, "on_duplicate": "replace"})).json()
    assert answer == {"job_id": answer["job_id"], "status": "queued", "replaces": first}
    assert (await api.get(f"/jobs/{first}")).json()["status"] == "cancelled"
    await workshop.drain()
    assert (await api.get(f"/jobs/{answer['job_id']}")).json()["status"] == "completed"


async def test_a_replacement_where_nothing_waits_is_a_job_like_any_other(api: httpx2.AsyncClient) -> None:
    answer = (await api.post("/jobs", json={**HELLO, "on_duplicate": "replace"})).json()
    assert answer.keys() == {"job_id", "status"}


async def test_of_many_replacements_at_once_one_waits_and_each_got_a_clear_answer(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    answers = await asyncio.gather(*(api.post("/jobs", json={**HELLO, "on_duplicate": "replace"}) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    states = await workshop.fetch("SELECT state, count(*) FROM action_runs GROUP BY state ORDER BY state DESC")
    assert states[0] == {"state": "queued", "count": 1}
    assert sum(row["count"] for row in states) == sum(answer.status_code == 202 for answer in answers)


async def test_a_replacement_that_cannot_be_stored_leaves_what_waits(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    first = (await api.post("/jobs", json=HELLO)).json()["job_id"]
    await workshop.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$
    """)
    await workshop.execute("CREATE TRIGGER refuse BEFORE INSERT ON action_runs FOR EACH ROW EXECUTE FUNCTION refuse()")
    assert (await api.post("/jobs", json={**HELLO, "on_duplicate": "replace"})).status_code == 503
    assert (await api.get(f"/jobs/{first}")).json()["status"] == "queued"


async def test_an_action_that_allows_one_to_wait_goes_first(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    @workshop.action(queueing_lock="one at a time")
    async def tidy(room: str) -> None: ...

    assert (await api.post("/jobs", json={"payload": {"task": "tidy", "room": "a"}})).status_code == 202
    answer = await api.post("/jobs", json={"payload": {"task": "tidy", "room": "b"}, "on_duplicate": "replace"})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/already-queued")


async def test_a_duplicate_can_be_rejected(api: httpx2.AsyncClient) -> None:
    await api.post("/jobs", json=HELLO)
    answer = await api.post("/jobs", json={**HELLO, "on_duplicate": "reject"})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/not-unique")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"payload": {"task": "nothing"}}, "/payload/task"),
        ({"payload": {"task": ""}}, "/payload/task"),
        ({"payload": {"task": None}}, "/payload/task"),
        ({"payload": {"task": 7}}, "/payload/task"),
        ({"payload": {"task": "hello_world", "dato": 1}}, "/payload/dato"),
        ({"payload": {"task": "hello_world", "data": "\x00"}}, "/payload/data"),
        ({"payload": {"task": "sleep", "seconds": "s3cr3t"}}, "/payload/seconds"),
        ({"payload": []}, "/payload"),
        ({"payload": None}, "/payload"),
        ({"payload": {}, "sleep_seconds": 3}, "/sleep_seconds"),
        ({"payload": {}, "on_duplicate": "maybe"}, "/on_duplicate"),
        ({"payload": {"a": "\x00"}}, "/payload/a"),
        ({"payload": {"a\x00": 1}}, "/payload"),
        ({"sleep_seconds": -1}, "/sleep_seconds"),
        ({"sleep_seconds": 86_401}, "/sleep_seconds"),
        ({"sleep_seconds": 2.5}, "/sleep_seconds"),
        ({"sleep_seconds": "3"}, "/sleep_seconds"),
        ({"sleep_seconds": True}, "/sleep_seconds"),
        ({"sleep_seconds": None}, "/sleep_seconds"),
        ({"sleep_seconds": 10**30}, "/sleep_seconds"),
        ({"message": 7}, "/message"),
        ({"message": "a\x00b"}, "/message"),
        ({"on_duplicate": "replace"}, "/on_duplicate"),
        ({"seconds": 3}, "/seconds"),
    ],
)  # fmt: skip
async def test_bad_input_costs_a_clear_answer_and_stores_nothing(
    api: httpx2.AsyncClient, workshop: Workshop, body: Any, pointer: str
) -> None:
    answer = await api.post("/jobs", json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-input")
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]
    assert "s3cr3t" not in answer.text
    assert await workshop.value("SELECT count(*) FROM action_runs") == 0


@pytest.mark.parametrize("content", [b"", b"[1]", b"null", b'"text"', b"{", b'{"message": NaN}'])
async def test_a_body_that_is_no_object_is_a_clear_answer(api: httpx2.AsyncClient, content: bytes) -> None:
    answer = await api.post("/jobs", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("job_id", ["550e8400-e29b-41d4-a716-446655440000", "{job_id}", "run_00"])
async def test_a_job_that_is_not_there_is_404(api: httpx2.AsyncClient, job_id: str) -> None:
    answer = await api.get(f"/jobs/{job_id}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/run-not-found")


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=x", "cursor=%00"])
async def test_a_bad_parameter_is_a_clear_answer(api: httpx2.AsyncClient, query: str) -> None:
    answer = await api.get(f"/jobs?{query}")
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_owners_do_not_see_each_other_s_jobs_and_nobody_s_is_another_s_duplicate(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act_as(owner: str) -> None:
        principal = Principal(owner, owner, frozenset({Scope.READ, Scope.WRITE}))
        monkeypatch.setattr(security, "identify", AsyncMock(return_value=principal))

    act_as("ada")
    hers = (await api.post("/jobs", json=HELLO)).json()["job_id"]
    slept = (await api.post("/jobs", json={})).json()["id"]
    act_as("bob")
    assert (await api.get(f"/jobs/{hers}")).status_code == (await api.get(f"/jobs/{slept}")).status_code == 404
    assert (await api.get("/jobs")).json() == []
    his = (await api.post("/jobs", json={**HELLO, "on_duplicate": "replace"})).json()
    assert his.keys() == {"job_id", "status"}
    act_as("ada")
    assert (await api.get(f"/jobs/{hers}")).json()["status"] == "queued"
