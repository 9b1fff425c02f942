"""Submitting safely: again, at most once at a time, later, and waiting for the end."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.main import create_app
from app.runs import service

BODY = {"action": "echo", "params": {"message": "hi"}}


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def echo(message: str) -> str:
        return message


async def post(api: httpx2.AsyncClient, body: Any = BODY, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.post("/runs", json=body, headers=named)


async def count(workshop: Workshop) -> int:
    return await workshop.value("SELECT count(*) FROM action_runs")


async def test_a_request_sent_again_with_its_key_gets_the_same_run_as_it_is_now(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    first = await post(api, idempotency_key="k1")
    assert (first.status_code, "idempotent-replayed" in first.headers) == (202, False)
    await workshop.drain()
    again = await post(api, {"params": {"message": "hi"}, "action": "echo"}, idempotency_key='"k1"')
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.headers["location"] == first.headers["location"]
    assert again.json()["state"] == "succeeded"
    assert await count(workshop) == 1


async def test_fifty_requests_of_one_key_at_once_at_two_apis_are_one_run(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    other = create_app(workshop.settings, workshop.queue, workshop.action)
    async with other.router.lifespan_context(other):
        transport = httpx2.ASGITransport(app=other, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as second:
            answers = await asyncio.gather(*(post((api, second)[n % 2], idempotency_key="k") for n in range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await count(workshop) == 1
    assert await workshop.value("SELECT count(*) FROM procrastinate_jobs") == 1


async def test_a_key_sent_with_something_else_is_422_and_stores_nothing(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    await post(api, idempotency_key="k")
    answer = await post(api, BODY | {"params": {"message": "other"}}, idempotency_key="k")
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert await count(workshop) == 1


async def test_one_whose_key_is_taken_takes_no_other_along(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await post(api, idempotency_key="k")
    answers = await asyncio.gather(
        post(api, BODY | {"tags": ["other"]}, idempotency_key="k"),
        *(post(api, idempotency_key=f"k{n}") for n in range(3)),
        post(api),
    )
    assert [answer.status_code for answer in answers] == [422, 202, 202, 202, 202]
    assert await count(workshop) == 5


async def test_a_key_whose_first_request_is_in_flight_is_409(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    async with workshop.engine.connect() as first:
        await first.exec_driver_sql(
            "INSERT INTO idempotency_keys (principal, key, fingerprint, job_id) VALUES ('local', 'k', '', 1)"
        )
        held, other = await asyncio.gather(post(api, idempotency_key="k"), post(api, idempotency_key="other"))
        assert (held.status_code, held.json()["type"]) == (409, "/problems/idempotency-in-flight")
        assert held.headers["retry-after"] == "1"
        assert other.status_code == 202
    assert (await post(api, idempotency_key="k")).status_code == 202


async def test_a_refused_request_does_not_use_up_its_key(api: httpx2.AsyncClient) -> None:
    assert (await post(api, {"action": "echo"}, idempotency_key="k")).status_code == 422
    assert (await post(api, idempotency_key="k")).status_code == 202


@pytest.mark.parametrize("key", ["", '""', "k" * 256, "a\tb", "é", '"open', '"a"b', '"a\\b"'])
async def test_a_key_that_is_none_is_400(api: httpx2.AsyncClient, key: str) -> None:
    answer = await api.post("/runs", json=BODY, headers=[(b"idempotency-key", key.encode())])
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-idempotency-key")


async def test_keys_are_forgotten_after_a_day(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await post(api, idempotency_key="old")
    await post(api, idempotency_key="young")
    await workshop.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")
    await service.prune(workshop.engine, older_than=service.KEYS_LIVE)
    assert await workshop.value("SELECT array_agg(key) FROM idempotency_keys") == ["young"]


async def test_a_batch_sent_again_with_its_key_stores_what_was_not_stored(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    async def send(*messages: Any) -> list[dict[str, Any]]:
        runs = [{"action": "echo", "params": {"message": message}} for message in messages]
        answer = await api.post("/runs/batch", json={"runs": runs}, headers={"idempotency-key": "k"})
        assert answer.status_code == 202
        return answer.json()["items"]

    first = await send("a", 7, "c")
    again = await send("a", "b", "d")
    assert again[0] == first[0]
    assert "id" in again[1]
    assert again[2]["error"]["type"] == "/problems/idempotency-key-reused"
    assert await count(workshop) == 3


async def test_a_delayed_run_is_scheduled_by_the_database_s_clock(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = (await post(api, BODY | {"delay": 90.5})).json()
    assert run["state"] == "scheduled"
    assert await workshop.value("SELECT extract(epoch FROM schedule_at - created_at)::float8 FROM action_runs") == 90.5
    assert (await post(api, BODY | {"delay": 0})).json()["schedule_at"] is None


@pytest.mark.parametrize("delay", [-1, 1e12, "5", True])
async def test_a_delay_that_is_none_is_422(api: httpx2.AsyncClient, delay: Any) -> None:
    answer = await post(api, BODY | {"delay": delay})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/delay")


async def test_a_time_and_a_delay_are_too_many(api: httpx2.AsyncClient) -> None:
    answer = await post(api, BODY | {"delay": 1, "schedule_at": "2999-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/delay")


async def test_who_prefers_to_wait_gets_the_end_if_it_comes_in_time(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    waiting = asyncio.create_task(post(api, prefer="respond-async, wait=20"))
    await eventually(lambda: workshop.value("SELECT 1 FROM action_runs"))
    await workshop.drain()
    answer = await waiting
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=20")
    assert (answer.json()["state"], answer.json()["result"]) == ("succeeded", "hi")
    assert "retry-after" not in answer.headers


async def test_who_has_waited_for_nothing_gets_the_run_as_it_is(api: httpx2.AsyncClient) -> None:
    answer = await post(api, prefer="wait=0")
    assert (answer.status_code, "preference-applied" in answer.headers) == (202, False)
    assert (await post(api, prefer="wait=soon")).status_code == 202


def unique(on_conflict: str, scope: str = "unended", key: str = "u") -> dict[str, Any]:
    return BODY | {"unique": {"key": key, "scope": scope, "on_conflict": on_conflict}}


async def test_of_fifty_unique_runs_at_once_one_is_stored_and_returned_to_all(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    answers = await asyncio.gather(*(post(api, unique("return_existing")) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await count(workshop) == 1
    await workshop.drain()
    assert (await post(api, unique("return_existing"))).status_code == 202, "the first has ended"
    assert (await post(api, unique("return_existing", key="other"))).status_code == 202


async def test_a_unique_run_that_is_there_rejects_another_and_is_named(api: httpx2.AsyncClient) -> None:
    first = (await post(api, unique("reject"))).json()
    answer = await post(api, unique("reject"))
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/not-unique")
    assert (answer.json()["run_id"], answer.json()["state"]) == (first["id"], "queued")


async def test_a_waiting_unique_run_is_replaced_and_both_say_so(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    first = (await post(api, unique("replace"))).json()
    answer = await post(api, unique("replace"))
    assert answer.status_code == 202
    assert answer.headers["link"] == f'<{first["links"]["self"]}>; rel="predecessor-version"'
    replaced = await workshop.get(first["id"])
    assert replaced.error is not None
    assert (replaced.state, replaced.error["type"]) == ("cancelled", "/problems/replaced")
    assert answer.json()["id"] in replaced.error["detail"]
    await workshop.drain()
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE state = 'succeeded'") == 1


async def test_of_twenty_that_replace_at_once_one_is_left(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    answers = await asyncio.gather(*(post(api, unique("replace")) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE state = 'queued'") == 1
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE state = 'cancelled'") == 19


async def test_a_running_unique_run_is_in_the_way_only_of_those_that_say_unended(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    first = (await post(api, unique("reject"))).json()
    await workshop.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    for on_conflict in ("reject", "replace"):
        answer = await post(api, unique(on_conflict))
        assert (answer.status_code, answer.json().get("run_id")) == (409, first["id"])
    assert (await post(api, unique("reject", "waiting"))).status_code == 202
    assert (await workshop.get(first["id"])).state == "running"


async def test_a_unique_request_sent_again_with_its_key_is_the_same_run(api: httpx2.AsyncClient) -> None:
    first = await post(api, unique("reject"), idempotency_key="k")
    again = await post(api, unique("reject"), idempotency_key="k")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert again.json()["id"] == first.json()["id"]
    answer = await post(api, unique("reject", key="v"), idempotency_key="k")
    assert answer.json()["type"] == "/problems/idempotency-key-reused"


async def test_items_of_a_batch_may_be_unique(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    answer = await api.post("/runs/batch", json={"runs": [BODY, unique("reject"), unique("reject"), unique("replace")]})
    items = answer.json()["items"]
    kept = [item["id"] for item in items if "id" in item]
    assert [item["error"]["type"] for item in items if "error" in item] == ["/problems/not-unique"] * (4 - len(kept))
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE state = 'queued'") == 2
