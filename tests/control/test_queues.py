"""Queues: what they hold, and that nobody claims from one that is paused."""

from __future__ import annotations

import httpx2
import pytest
from tests.support.workshop import Workshop

from app.engine.limits import Limit


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def echo(message: str = "hi") -> str:
        return message


async def submit(api: httpx2.AsyncClient, **options: object) -> str:
    answer = await api.post("/runs", json={"action": "echo", **options})
    assert answer.status_code == 202
    return answer.json()["id"]


async def queue(api: httpx2.AsyncClient, name: str) -> dict[str, object]:
    [found] = [item for item in (await api.get("/queues")).json()["items"] if item["name"] == name]
    return found


async def state(api: httpx2.AsyncClient, run_id: str) -> str:
    return (await api.get(f"/runs/{run_id}")).json()["state"]


async def test_a_queue_tells_what_it_holds(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    for _ in range(3):
        await submit(api, queue="mail")
    await submit(api, queue="mail", schedule_at="2999-01-01T00:00:00Z")
    await workshop.execute("UPDATE action_runs SET created_at = now() - interval '1 hour'")
    async with workshop.working(queues=["other"], concurrency=7) as worker:
        await workshop.execute(
            "UPDATE procrastinate_jobs SET status = 'doing' WHERE id = (SELECT min(id) FROM procrastinate_jobs)"
        )
        other = None
        while not other:
            other = next((item for item in (await api.get("/queues")).json()["items"] if item["name"] == "other"), None)
        mail = await queue(api, "mail")
        assert worker.worker_id
    assert (mail["queued"], mail["running"], mail["scheduled"], mail["retrying"]) == (2, 1, 1, 0)
    assert mail["oldest_seconds"] == pytest.approx(3600, abs=60)
    assert (mail["workers"], mail["slots"], mail["paused"]) == (0, 0, None)
    assert (other["workers"], other["slots"], other["queued"]) == (1, 7, 0)


async def test_a_run_that_was_scheduled_long_ago_has_waited_since_its_time(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    await submit(api, queue="mail", schedule_at="2999-01-01T00:00:00Z")
    await workshop.execute("UPDATE action_runs SET created_at = now() - interval '1 year'")
    await workshop.execute("UPDATE procrastinate_jobs SET scheduled_at = now() - interval '1 minute'")
    assert (await queue(api, "mail"))["oldest_seconds"] == pytest.approx(60, abs=30)


@pytest.mark.parametrize("lock", [None, "one"])
async def test_nobody_claims_from_a_paused_queue(api: httpx2.AsyncClient, workshop: Workshop, lock: str | None) -> None:
    paused, other = await submit(api, queue="mail", lock=lock), await submit(api, queue="z", lock=lock and "two")
    answer = await api.post("/queues/mail/pause", json={"reason": "vendor down"})
    assert answer.status_code == 200
    assert answer.json()["paused"] | {"at": None} == {
        "by": "local", "reason": "vendor down", "at": None, "resume_at": None
    }  # fmt: skip
    await workshop.drain()
    assert (await state(api, paused), await state(api, other)) == ("queued", "succeeded")
    assert (await api.post("/queues/mail/resume")).json()["paused"] is None
    await workshop.drain()
    assert await state(api, paused) == "succeeded"


async def test_limited_runs_of_a_paused_queue_wait_too(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.execute("INSERT INTO limits (task_name, concurrency, is_adopted) VALUES ('echo', 5, true)")
    paused, other = await submit(api, queue="mail"), await submit(api, queue="z")
    assert await workshop.value("SELECT count(*) FROM procrastinate_jobs WHERE limit_key = 'echo'") == 2
    workshop.queue.limits["echo"] = Limit(concurrency=5)
    await api.post("/queues/mail/pause")
    await workshop.drain()
    assert (await state(api, paused), await state(api, other)) == ("queued", "succeeded")


async def test_a_pause_ends_when_its_time_has_come_by_the_database_s_clock(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    run = await submit(api, queue="mail")
    answer = await api.post("/queues/mail/pause", json={"resume_at": "2999-01-01T00:00:00Z"})
    assert answer.json()["paused"]["resume_at"] == "2999-01-01T00:00:00Z"
    await workshop.drain()
    assert await state(api, run) == "queued"
    await workshop.execute("UPDATE queue_pauses SET resume_at = now()")
    assert (await queue(api, "mail"))["paused"] is None
    await workshop.drain()
    assert await state(api, run) == "succeeded"


@pytest.mark.bell("resuming rings")
async def test_resuming_starts_what_waits_at_once(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await api.post("/queues/mail/pause")
    async with workshop.working(fetch_job_polling_interval=600):
        run = await submit(api, queue="mail")
        other = await workshop.get(await submit(api))
        await workshop.reaches(other, "succeeded")
        assert await state(api, run) == "queued"
        await api.post("/queues/mail/resume")
        await workshop.reaches(await workshop.get(run), "succeeded")


async def test_a_run_that_runs_when_its_queue_is_paused_goes_on_to_its_end(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    @workshop.action(queue="mail")
    async def pause_own_queue() -> str:
        assert (await api.post("/queues/mail/pause")).status_code == 200
        return "done"

    run = await workshop.submit("pause_own_queue")
    await workshop.drain()
    assert (await workshop.get(run)).state == "succeeded"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"resume_at": "2001-01-01T00:00:00Z"}, "/resume_at"),
        ({"resume_at": "soon"}, "/resume_at"),
        ({"reason": "a\x00b"}, "/reason"),
        ({"until": "tomorrow"}, "/until"),
    ],
)
async def test_a_pause_that_means_nothing_is_refused(
    api: httpx2.AsyncClient, body: dict[str, str], pointer: str
) -> None:
    answer = await api.post("/queues/mail/pause", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert (await api.get("/queues")).json() == {"items": []}


async def test_a_name_that_no_queue_can_have_is_refused(api: httpx2.AsyncClient) -> None:
    assert (await api.post("/queues/a%00b/pause")).status_code == 422
    assert (await api.post(f"/queues/{'q' * 200}/resume")).status_code == 422


async def test_a_worker_tells_what_it_is_and_what_it_holds(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    seen: list[dict[str, object]] = []

    @workshop.action()
    async def look() -> None:
        seen.extend((await api.get("/workers")).json()["items"])

    run = await workshop.submit("look")
    async with workshop.working(queues=["default", "mail"], concurrency=3):
        await workshop.reaches(run, "succeeded")
    [worker] = seen
    assert (worker["queues"], worker["concurrency"], worker["running"]) == (["default", "mail"], 3, 1)
    assert worker["runs"] == [run.id]
    assert {"echo", "look"} <= set(worker["actions"])  # pyright: ignore[reportArgumentType]
    assert worker["is_stale"] is False
    assert (await api.get("/workers")).json() == {"items": []}, "it has left"


async def test_a_worker_that_is_not_heard_of_is_stale(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.execute("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour')")
    [worker] = (await api.get("/workers")).json()["items"]
    assert worker["is_stale"] is True
    assert worker["heartbeat_seconds"] == pytest.approx(3600, abs=60)
    assert worker["host"] is None
