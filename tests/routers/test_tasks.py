"""The door `/tasks`: the words of a task queue, and a stream of them."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import AsyncMock

import httpx2
import pytest
from tests.support.workshop import Workshop

from app.access.principal import Principal, Scope
from app.engine.retry import Retry
from app.routers import security
from app.runs.context import Run


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def count(run: Run, to: int) -> int:
        await run.progress(to, to, "counted")
        await run.log("not for this door")
        return to

    @workshop.action(retry=Retry(max_attempts=1))
    async def fail() -> None:
        raise ValueError("no luck")


async def test_a_task_is_told_of_in_its_document_s_words(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    answer = await api.post("/tasks", json={"type": "count", "payload": {"to": 3}})
    task_id = answer.json()["task_id"]
    assert (answer.status_code, answer.json()) == (202, {"task_id": task_id, "status": "PENDING"})
    assert answer.headers["location"] == f"/tasks/{task_id}"
    assert answer.headers["retry-after"] == "1"
    assert (await api.get(f"/tasks/{task_id}")).json()["status"] == "PENDING"
    await workshop.drain()
    ended = await api.get(f"/tasks/{task_id}")
    task = ended.json()
    assert (task["task_id"], task["status"], task["result"], task["error"]) == (task_id, "SUCCESS", 3, None)
    assert (task["type"], task["payload"], task["attempt"]) == ("count", {"to": 3}, 1)
    assert task["progress"] == {"done": 3, "total": 3, "percent": 100, "message": "counted"}
    assert "retry-after" not in ended.headers


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("scheduled", "PENDING"),
        ("queued", "PENDING"),
        ("retrying", "PENDING"),
        ("running", "PROGRESS"),
        ("cancelled", "REVOKED"),
    ],
)
async def test_every_state_has_its_word(api: httpx2.AsyncClient, workshop: Workshop, state: str, word: str) -> None:
    task_id = (await api.post("/tasks", json={"type": "count", "payload": {"to": 1}})).json()["task_id"]
    await workshop.execute(
        "UPDATE action_runs SET state = :state, schedule_at = now() + interval '1 day', "
        "finished_at = CASE WHEN :state = 'cancelled' THEN now() END",
        state=state,
    )
    assert (await api.get(f"/tasks/{task_id}")).json()["status"] == word


async def test_a_stream_tells_status_and_progress_and_ends_with_the_result(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    task_id = (await api.post("/tasks", json={"type": "count", "payload": {"to": 3}})).json()["task_id"]
    await workshop.drain()
    messages = read((await api.get(f"/tasks/{task_id}/stream")).text)
    assert [data["status"] for _, data in messages] == ["PENDING", "PROGRESS", "PROGRESS", "SUCCESS"]
    assert {data["task_id"] for _, data in messages} == {task_id}
    assert messages[2][1]["progress"]["percent"] == 100
    assert messages[-1][1]["result"] == 3
    assert [seq for seq, _ in messages] == sorted(seq for seq, _ in messages)


async def test_a_stream_of_a_task_that_failed_ends_with_why(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    task_id = (await api.post("/tasks", json={"type": "fail"})).json()["task_id"]
    await workshop.drain()
    _, last = read((await api.get(f"/tasks/{task_id}/stream")).text)[-1]
    assert (last["status"], last["error"]["detail"]) == ("FAILURE", "no luck")


async def test_a_stream_resumes_after_the_last_message_seen_and_is_204_after_the_last(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    task_id = (await api.post("/tasks", json={"type": "count", "payload": {"to": 3}})).json()["task_id"]
    await workshop.drain()
    messages = read((await api.get(f"/tasks/{task_id}/stream")).text)
    for number, (seq, _) in enumerate(messages[:-1], start=1):
        rest = await api.get(f"/tasks/{task_id}/stream", headers={"Last-Event-ID": str(seq)})
        assert read(rest.text) == messages[number:]
    (last, _) = messages[-1]
    assert (await api.get(f"/tasks/{task_id}/stream", headers={"Last-Event-ID": str(last)})).status_code == 204


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"type": "nothing"}, 404, None),
        ({}, 422, "/type"),
        ({"type": 7}, 422, "/type"),
        ({"type": "count"}, 422, "/payload/to"),
        ({"type": "count", "payload": {"to": "s3cr3t"}}, 422, "/payload/to"),
        ({"type": "count", "payload": {"to": 1, "\x00": 1}}, 422, "/payload"),
        ({"type": "count", "payload": []}, 422, "/payload"),
        ({"type": "count", "payload": {"to": 1}, "status": "SUCCESS"}, 422, "/status"),
        ([1], 422, ""),
    ],
)
async def test_bad_input_costs_a_clear_answer_and_stores_nothing(
    api: httpx2.AsyncClient, workshop: Workshop, body: Any, status: int, pointer: str | None
) -> None:
    answer = await api.post("/tasks", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    if pointer:
        assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]
    assert "s3cr3t" not in answer.text
    assert await workshop.value("SELECT count(*) FROM action_runs") == 0


async def test_a_task_that_is_not_there_or_somebody_else_s_is_404(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = (await api.post("/tasks", json={"type": "count", "payload": {"to": 3}})).json()["task_id"]
    bob = Principal("bob", "bob", frozenset({Scope.READ, Scope.WRITE}))
    monkeypatch.setattr(security, "identify", AsyncMock(return_value=bob))
    for unseen in (task_id, "run_20200101T000000Z_00000000", "nonsense"):
        for answer in (await api.get(f"/tasks/{unseen}"), await api.get(f"/tasks/{unseen}/stream")):
            assert (answer.status_code, answer.json()["type"]) == (404, "/problems/run-not-found")


def read(stream: str) -> list[tuple[int, dict[str, Any]]]:
    """The messages of a stream, as an `EventSource` hands them to `onmessage`: id and data."""
    messages: list[tuple[int, dict[str, Any]]] = []
    for block in stream.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        assert "event" not in fields
        if "data" in fields:
            messages.append((int(fields["id"]), json.loads(fields["data"])))
    return messages
