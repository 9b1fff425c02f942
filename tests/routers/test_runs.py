"""The API in the words of runs: what it promises, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from tests.support.workshop import Workshop

from app.engine.retry import Retry


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def echo(message: str, times: int = 1) -> str:
        return message * times

    @workshop.action()
    async def wait(seconds: float) -> None: ...

    @workshop.action(retry=Retry(max_attempts=1))
    async def fail() -> None:
        raise ValueError("no luck")


async def test_a_202_has_the_run_where_it_is_and_when_to_look(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/runs", json={"action": "echo", "params": {"message": "hi"}, "tags": ["a"]})
    assert answer.status_code == 202
    run = answer.json()
    assert answer.headers["location"] == f"/runs/{run['id']}"
    assert answer.headers["retry-after"] == "1"
    assert (run["state"], run["params"], run["tags"], run["attempt"]) == ("queued", {"message": "hi"}, ["a"], 0)
    assert run["created_at"].endswith("Z")
    assert (await api.get(answer.headers["location"])).json() == run


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({}, {}),
        ({"Idempotency-Key": "k"}, {"queue": "slow", "priority": 3, "max_attempts": 2}),
        ({}, {"lock": "a", "queueing_lock": "b", "start_deadline": "2999-01-01T00:00:00+01:00"}),
        ({}, {"delay": 60, "tags": ["b", "a"]}),
        ({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {"unique": {"key": "u"}}),
    ],
    ids=["nothing", "key", "locks", "later", "unique"],
)
async def test_what_is_answered_is_what_is_read_whatever_was_asked_for(
    api: httpx2.AsyncClient, headers: dict[str, str], asked: dict[str, Any]
) -> None:
    body = {"action": "echo", "params": {"message": "hi é", "times": 2}, **asked}
    answer = await api.post("/runs", json=body, headers=headers)
    assert answer.status_code == 202
    assert (await api.get(answer.headers["location"])).json() == answer.json()


async def test_a_run_that_ended_has_its_result_and_no_retry_after(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = (await api.post("/runs", json={"action": "echo", "params": {"message": "hi"}})).json()
    await workshop.drain()
    answer = await api.get(f"/runs/{run['id']}")
    assert (answer.json()["state"], answer.json()["result"]) == ("succeeded", "hi")
    assert "retry-after" not in answer.headers
    assert answer.json()["max_attempts"] == 5


async def test_a_scheduled_run_says_when_to_look(api: httpx2.AsyncClient) -> None:
    answer = await api.post(
        "/runs", json={"action": "echo", "params": {"message": "x"}, "schedule_at": "2999-01-01T00:00:00+01:00"}
    )
    assert answer.json()["state"] == "scheduled"
    assert answer.json()["schedule_at"] == "2998-12-31T23:00:00Z"
    assert answer.headers["retry-after"] == "60"


@pytest.mark.parametrize(
    ("body", "status", "type_", "pointer"),
    [
        ({"action": "nothing"}, 404, "/problems/unknown-action", None),
        ({}, 422, "/problems/invalid-input", "/action"),
        ({"action": "echo"}, 422, "/problems/invalid-input", "/params/message"),
        ({"action": "echo", "params": {"message": 7_777}}, 422, "/problems/invalid-input", "/params/message"),
        ({"action": "echo", "params": {"message": "x", "a": "s3cr3t"}}, 422, "/problems/invalid-input", "/params/a"),
        ({"action": "echo", "params": []}, 422, "/problems/invalid-input", "/params"),
        ({"action": "echo", "state": "succeeded"}, 422, "/problems/invalid-input", "/state"),
        ({"action": "echo", "priority": True}, 422, "/problems/invalid-input", "/priority"),
        ({"action": "echo", "priority": 10**30}, 422, "/problems/invalid-input", "/priority"),
        ({"action": "echo", "queue": "a b"}, 422, "/problems/invalid-input", "/queue"),
        ({"action": "echo", "queue": "q" * 41}, 422, "/problems/invalid-input", "/queue"),
        ({"action": "echo", "lock": "l" * 3000}, 422, "/problems/invalid-input", "/lock"),
        ({"action": "echo", "schedule_at": "2026-01-01T00:00:00"}, 422, "/problems/invalid-input", "/schedule_at"),
        ({"action": "echo", "params": {"message": "\x00"}}, 422, "/problems/invalid-input", "/params/message"),
        ({"action": "echo", "schedule_at": "9999-12-31T23:59:59-12"}, 422, "/problems/invalid-input", "/schedule_at"),
        ({"action": "echo", "schedule_at": "0001-01-01T00:00:00+14"}, 422, "/problems/invalid-input", "/schedule_at"),
        ({"action": "echo", "lock": "a\x00b"}, 422, "/problems/invalid-input", "/lock"),
        ({"action": "echo", "tags": ["a\x00b"]}, 422, "/problems/invalid-input", "/tags/0"),
        ({"action": "wait", "params": {"seconds": "1e400"}}, 422, "/problems/invalid-input", "/params/seconds"),
        ([1], 422, "/problems/invalid-input", None),
        ("text", 422, "/problems/invalid-input", None),
    ],
)  # fmt: skip
async def test_bad_input_costs_a_clear_answer_and_stores_nothing(
    api: httpx2.AsyncClient, workshop: Workshop, body: Any, status: int, type_: str, pointer: str | None
) -> None:
    answer = await api.post("/runs", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (status, type_)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["title"]
    if pointer:
        assert pointer in [fault["pointer"] for fault in problem["errors"]]
    assert "7777" not in answer.text
    assert "s3cr3t" not in answer.text
    assert await workshop.value("SELECT count(*) FROM action_runs") == 0


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"action": "echo"} x',
        b'{"action": "echo", "params": {"message": NaN}}',
        b'{"action": "echo", "params": {"message": "\\ud800"}}',
        '{"action": "echo"}'.encode("utf-16"),
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
async def test_a_body_that_is_not_json_is_400(api: httpx2.AsyncClient, content: bytes) -> None:
    answer = await api.post("/runs", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/unreadable-body")


async def test_a_body_that_is_too_large_is_413(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/runs", json={"action": "echo", "params": {"message": "x" * 3_000_000}})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("run_id", ["run_20200101T000000Z_00000000", "nonsense", "x" * 64])
async def test_a_run_that_is_not_there_is_404(api: httpx2.AsyncClient, run_id: str) -> None:
    for answer in (
        await api.get(f"/runs/{run_id}"),
        await api.get(f"/runs/{run_id}/events"),
        await api.post(f"/runs/{run_id}/cancel"),
        await api.post(f"/runs/{run_id}/retry"),
        await api.get(f"/actions/run/{run_id}"),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/run-not-found")


async def test_runs_are_listed_newest_first_page_by_page_each_once(api: httpx2.AsyncClient) -> None:
    sent = [
        (await api.post("/runs", json={"action": "echo", "params": {"message": str(n)}})).json()["id"] for n in range(7)
    ]
    seen, cursor = [], None
    while True:
        page = (await api.get("/runs", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == sent[::-1]


async def test_runs_can_be_listed_by_state_action_queue_and_tag(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await api.post("/runs", json={"action": "echo", "params": {"message": "x"}, "tags": ["red", "blue"]})
    await api.post("/runs", json={"action": "fail", "queue": "q"})
    await api.post("/runs", json={"action": "echo", "params": {"message": "x"}, "schedule_at": "2999-01-01T00:00:00Z"})
    await workshop.drain()

    async def listed(**filters: str) -> list[str]:
        answer = await api.get("/runs", params=filters)
        assert answer.status_code == 200, answer.text
        return [run["action"] for run in answer.json()["items"]]

    assert await listed(state="failed") == ["fail"]
    assert await listed(state="scheduled") == ["echo"]
    assert await listed(state="queued") == []
    assert await listed(action="echo") == ["echo", "echo"]
    assert await listed(tag="blue") == ["echo"]
    assert await listed(queue="q") == ["fail"]
    await workshop.execute("UPDATE action_runs SET schedule_at = now() WHERE state = 'scheduled'")
    assert await listed(state="queued") == ["echo"]
    assert await listed(state="scheduled") == []


async def test_rows_that_sql_made_odd_do_not_break_the_list(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args, scheduled_at) "
        "VALUES ('default', 'echo', '[1]', 'infinity'), ('default', 'echo', '7', '-infinity')"
    )
    runs = (await api.get("/runs")).json()["items"]
    assert [(run["state"], run["params"]) for run in runs] == [("queued", {"args": 7}), ("scheduled", {"args": [1]})]


async def test_an_offset_that_postgresql_does_not_know_is_the_same_time_in_utc(api: httpx2.AsyncClient) -> None:
    body = {"action": "fail", "schedule_at": "2027-01-01T00:00:00+23:59"}
    assert (await api.post("/runs", json=body)).json()["schedule_at"] == "2026-12-31T00:01:00Z"


async def test_what_an_action_sent_to_the_database_is_not_in_its_error(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    @workshop.action(retry=Retry(max_attempts=1))
    async def refused() -> None:
        async with workshop.engine.connect() as connection:
            await connection.execute(text("SELECT CAST(:secret AS integer)"), {"secret": "s3cr3t"})

    run = (await api.post("/runs", json={"action": "refused"})).json()
    await workshop.drain()
    failed = (await api.get(f"/runs/{run['id']}")).json()
    assert failed["state"] == "failed"
    assert "s3cr3t" not in json.dumps(failed["error"])


@pytest.mark.parametrize("cursor", ["x", "é", "AAAA", "////////////", "_" * 11])
async def test_a_cursor_of_another_make_is_400(api: httpx2.AsyncClient, cursor: str) -> None:
    answer = await api.get("/runs", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-cursor")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "state=done", "tag=%00", "action=%00", "queue=%00"]
)
async def test_a_bad_parameter_is_422_and_named(api: httpx2.AsyncClient, query: str) -> None:
    answer = await api.get(f"/runs?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == query.split("=")[0]


async def test_a_waiting_run_is_cancelled_at_once(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = (await api.post("/runs", json={"action": "echo", "params": {"message": "x"}})).json()
    for _ in range(2):
        answer = await api.post(f"/runs/{run['id']}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert "retry-after" not in answer.headers
    await workshop.drain()
    assert (await workshop.get(run["id"])).state == "cancelled"


async def test_a_run_that_ended_cannot_be_cancelled(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = (await api.post("/runs", json={"action": "echo", "params": {"message": "x"}})).json()
    await workshop.drain()
    before = (await api.get(f"/runs/{run['id']}")).json()
    answer = await api.post(f"/runs/{run['id']}/cancel")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/run-final")
    assert (await api.get(f"/runs/{run['id']}")).json() == before


async def test_a_running_run_is_asked_to_stop_again_and_again_with_the_same_answer(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    started = asyncio.Event()

    @workshop.action()
    async def endless() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    release = asyncio.Event()
    run = (await api.post("/runs", json={"action": "endless"})).json()
    async with workshop.working():
        await started.wait()
        for _ in range(2):
            answer = await api.post(f"/runs/{run['id']}/cancel")
            assert (answer.status_code, answer.json()["state"]) == (202, "running")
            assert answer.headers["retry-after"] == "1"
        release.set()
    assert (await workshop.get(run["id"])).state == "cancelled"


async def test_a_failed_run_can_be_retried_and_others_cannot(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = (await api.post("/runs", json={"action": "fail"})).json()
    assert (await api.post(f"/runs/{run['id']}/retry")).json()["type"] == "/problems/run-not-failed"
    await workshop.drain()
    answer = await api.post(f"/runs/{run['id']}/retry")
    assert (answer.status_code, answer.json()["state"]) == (202, "retrying")
    await workshop.drain()
    assert (await workshop.get(run["id"])).attempt == 2


async def test_a_second_run_of_a_queueing_lock_is_409(api: httpx2.AsyncClient) -> None:
    body = {"action": "fail", "queueing_lock": "one"}
    first = await api.post("/runs", json=body)
    assert first.status_code == 202
    answer = await api.post("/runs", json=body)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/already-queued")
    assert answer.json()["run_id"] == first.json()["id"]


async def test_the_traceback_is_shown_to_those_who_ask(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = (await api.post("/runs", json={"action": "fail"})).json()
    await workshop.drain()
    assert "traceback" not in (await api.get(f"/runs/{run['id']}")).json()
    asked = (await api.get(f"/runs/{run['id']}", params={"include": "traceback"})).json()
    assert 'raise ValueError("no luck")' in asked["traceback"]


async def test_the_trace_of_the_request_is_the_trace_of_the_run(api: httpx2.AsyncClient) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = await api.post(
        "/runs",
        json={"action": "echo", "params": {"message": "x"}},
        headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"},
    )
    assert answer.json()["trace_id"] == trace


async def test_the_events_of_an_ended_run_are_its_history_and_its_end(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    run = (await api.post("/runs", json={"action": "echo", "params": {"message": "x"}})).json()
    await workshop.drain()
    snapshot, *events = parse((await api.get(f"/runs/{run['id']}/events")).text)
    assert (snapshot["event"], snapshot["data"]["state"], "id" in snapshot) == ("snapshot", "succeeded", False)
    assert [(event["event"], event["id"]) for event in events] == [
        ("state", "1"), ("state", "2"), ("state", "3"), ("end", "3"),
    ]  # fmt: skip
    assert [event["data"]["state"] for event in events] == ["queued", "running", "succeeded", "succeeded"]
    assert events[-1]["data"]["result"] == "x"


async def test_a_stream_resumes_after_the_last_event_seen(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = (await api.post("/runs", json={"action": "echo", "params": {"message": "x"}})).json()
    await workshop.drain()
    url = f"/runs/{run['id']}/events"
    resumed = parse((await api.get(url, headers={"last-event-id": "2"})).text)
    assert [event.get("id") for event in resumed] == [None, "3", "3"]
    assert parse((await api.get(url, params={"last_event_id": "2"})).text) == resumed
    assert (await api.get(url, headers={"last-event-id": "3"})).status_code == 204
    assert (await api.get(url, params={"last_event_id": "3"})).status_code == 204


@pytest.mark.parametrize("sent", ["-1", "abc", "99999999999999999999", "1.5", "١"])
async def test_an_event_id_that_is_not_one_is_400(api: httpx2.AsyncClient, sent: str) -> None:
    run = (await api.post("/runs", json={"action": "fail"})).json()
    answer = await api.get(f"/runs/{run['id']}/events", headers=[(b"last-event-id", sent.encode())])
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-event-id")


def parse(stream: str) -> list[dict[str, Any]]:
    """Server-sent events, without comments and retry hints."""
    events = []
    for block in stream.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            events.append({**fields, "data": json.loads(fields["data"])})
    return events


async def test_a_method_that_a_path_does_not_have_is_405_and_those_it_has_are_named(api: httpx2.AsyncClient) -> None:
    answer = await api.put("/runs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await api.delete("/runs/run_20200101T000000Z_00000000")).headers["allow"] == "GET, HEAD"
    assert (await api.delete("/runs/batch")).headers["allow"] == "POST"
