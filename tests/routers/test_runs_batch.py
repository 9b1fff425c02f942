"""`POST /runs/batch`: each request is accepted or refused by itself."""

from __future__ import annotations

import httpx2
import pytest
from tests.support.workshop import Workshop


@pytest.fixture(autouse=True)
def double(workshop: Workshop) -> None:
    @workshop.action()
    async def double(n: int) -> int:
        return 2 * n

    @workshop.action(queueing_lock="one waits")
    async def alone() -> None: ...


async def test_a_batch_is_stored_in_the_order_sent(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    answer = await api.post(
        "/runs/batch", json={"runs": [{"action": "double", "params": {"n": n}} for n in range(300)]}
    )
    assert answer.status_code == 202
    ids = [item["id"] for item in answer.json()["items"]]
    assert [(await workshop.get(id_)).params["n"] for id_ in ids[:3] + ids[-3:]] == [0, 1, 2, 297, 298, 299]
    await workshop.drain()
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE state = 'succeeded'") == 300


async def test_what_is_wrong_with_one_is_said_of_that_one(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    answer = await api.post(
        "/runs/batch",
        json={
            "runs": [
                {"action": "double", "params": {"n": 1}},
                {"action": "no such"},
                {"action": "double", "params": {"n": "many"}},
                {"action": "double", "params": {"n": 2}, "surprise": True},
                "no object",
                {"action": "alone"},
                {"action": "alone"},
            ]
        },
    )
    assert answer.status_code == 202
    items = answer.json()["items"]
    assert [set(item) for item in items] == [{"id"}, {"error"}, {"error"}, {"error"}, {"error"}, {"id"}, {"error"}]
    errors = [item.get("error", {}) for item in items]
    assert [error.get("status") for error in errors] == [None, 404, 422, 422, 422, None, 409]
    assert errors[2]["errors"][0]["pointer"] == "/runs/2/params/n"
    assert errors[3]["errors"][0]["pointer"] == "/runs/3/surprise"
    assert errors[4]["errors"][0]["pointer"] == "/runs/4"
    assert errors[6]["type"].endswith("/problems/already-queued")
    assert await workshop.value("SELECT count(*) FROM action_runs") == 2


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_of_none_or_too_many_is_refused_whole(
    api: httpx2.AsyncClient, workshop: Workshop, count: int
) -> None:
    answer = await api.post("/runs/batch", json={"runs": [{"action": "double", "params": {"n": 1}}] * count})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/runs"
    assert await workshop.value("SELECT count(*) FROM action_runs") == 0
