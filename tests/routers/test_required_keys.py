"""Actions whose runs are asked for with an `Idempotency-Key` only: at every door, and not by this program itself."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from tests.support.workshop import Workshop

from app.runs.actions import Actions
from app.runs.context import Run

KEY = {"idempotency-key": "k"}


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action(idempotency="required")
    async def pay(amount: int) -> int:
        return amount

    @workshop.action(idempotency="required")
    async def sleep(seconds: float, message: str | None) -> None: ...

    @workshop.action()
    async def order(run: Run) -> None:
        await run.spawn("pay", {"amount": 5})


DOORS: list[tuple[str, dict[str, Any]]] = [
    ("/runs", {"action": "pay", "params": {"amount": 5}}),
    ("/runs", {"action": "pay", "params": {"amount": 5}, "unique": {"key": "u"}}),
    ("/actions/run", {"action": "pay", "params": {"amount": 5}}),
    ("/jobs", {"payload": {"task": "pay", "amount": 5}}),
    ("/jobs", {"sleep_seconds": 2}),
    ("/tasks", {"type": "pay", "payload": {"amount": 5}}),
]


async def count(workshop: Workshop) -> int:
    return await workshop.value("SELECT count(*) FROM action_runs")


@pytest.mark.parametrize(("path", "body"), DOORS)
async def test_no_door_takes_a_request_without_its_key(
    api: httpx2.AsyncClient, workshop: Workshop, path: str, body: dict[str, Any]
) -> None:
    answer = await api.post(path, json=body)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/idempotency-key-missing")
    assert answer.json()["detail"].startswith("Send an Idempotency-Key: ")
    assert await count(workshop) == 0
    assert (await api.post(path, json=body, headers=KEY)).status_code == 202
    assert (await api.post(path, json=body, headers=KEY)).headers["idempotent-replayed"] == "true"
    assert await count(workshop) == 1


async def test_an_empty_key_is_invalid_and_not_missing(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/runs", json=DOORS[0][1], headers={"idempotency-key": ""})
    assert answer.json()["type"] == "/problems/invalid-idempotency-key"


async def test_in_a_batch_the_key_counts_for_all(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    runs = {"runs": [{"action": "order"}, DOORS[0][1]]}
    first, second = (await api.post("/runs/batch", json=runs)).json()["items"]
    assert (set(first), second["error"]["type"]) == ({"id"}, "/problems/idempotency-key-missing")
    items = (await api.post("/runs/batch", json=runs, headers=KEY)).json()["items"]
    assert [set(item) for item in items] == [{"id"}, {"id"}]


async def test_a_replay_is_a_request_like_any_other(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = (await api.post("/runs", json=DOORS[0][1], headers=KEY)).json()
    replay = f"/runs/{run['id']}/replay"
    assert (await api.post(replay)).json()["type"] == "/problems/idempotency-key-missing"
    assert (await api.post(replay, headers={"idempotency-key": "again"})).json()["replay_of"] == run["id"]


async def test_this_program_itself_needs_no_key(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.submit("pay", amount=1)
    await api.post("/runs", json={"action": "order"})
    schedule = {"name": "monthly", "action": "pay", "params": {"amount": 5}, "cron": "0 0 1 * *"}
    assert (await api.post("/schedules", json=schedule)).status_code == 201
    assert (await api.post("/schedules/monthly/run")).status_code == 202
    await workshop.drain()
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE action = 'pay' AND state = 'succeeded'") == 3


def test_a_word_that_is_neither_is_refused_where_it_is_written(workshop: Workshop) -> None:
    actions: Actions = workshop.action
    with pytest.raises(ValueError, match="'optional' or 'required'"):
        actions("charge", idempotency="sometimes")  # pyright: ignore[reportArgumentType]
