"""Why a run is not running: a test for each reason, and for their order."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from tests.support.plans import root_of, scanned
from tests.support.workshop import Workshop

from app.control import queries
from app.control.queries.facts import _GET_FACTS
from app.engine.limits import Limit, Rate
from app.engine.retry import Retry
from app.errors import RateLimited
from app.runs.context import Run


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def echo(message: str = "hi") -> str:
        return message

    @workshop.action(retry=Retry(max_attempts=3, base=3600, cap=3600))
    async def flaky() -> None:
        raise ConnectionError("no answer")

    @workshop.action()
    async def limited(run: Run) -> None:
        raise RateLimited("no more for now", retry_after=600)

    @workshop.action(limit=Limit(concurrency=1, by="customer"))
    async def narrow(customer: str) -> None: ...

    @workshop.action(limit=Limit(rate=Rate(1, seconds=3600)))
    async def slow() -> None: ...

    @workshop.action()
    async def parent(run: Run) -> None:
        await run.gather([("flaky", {}), ("echo", {}), ("flaky", {})])

    @workshop.action()
    async def approval(run: Run, timeout: float | None) -> None:
        await run.wait_for("approved", timeout=timeout)


@pytest.fixture
async def api(api: httpx2.AsyncClient, workshop: Workshop) -> httpx2.AsyncClient:
    """The API, beside a live worker that has no free place: nothing starts, and nothing else is in the way."""
    await live_worker(workshop)
    return api


async def live_worker(workshop: Workshop, queues: list[str] | None = None, actions: list[str] | None = None) -> int:
    worker_id = await workshop.queue.job_manager.register_worker()
    await workshop.execute("UPDATE procrastinate_workers SET last_heartbeat = now() + interval '1 day'")
    await workshop.execute(
        "INSERT INTO workers (id, host, pid, version, queues, actions, concurrency) "
        "VALUES (:id, 'here', 1, '0', :queues, :actions, 2)",
        id=worker_id,
        queues=queues,
        actions=actions or sorted(workshop.queue.tasks),
    )
    return worker_id


async def submit(api: httpx2.AsyncClient, action: str = "echo", **options: Any) -> str:
    answer = await api.post("/runs", json={"action": action, **options})
    assert answer.status_code == 202
    return answer.json()["id"]


async def start(workshop: Workshop, run_id: str) -> None:
    """As if a worker performed it."""
    await workshop.execute(
        "UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT min(id) FROM procrastinate_workers) "
        "WHERE id = (SELECT job_id FROM action_runs WHERE id = :id)",
        id=run_id,
    )


async def why(api: httpx2.AsyncClient, run_id: str) -> list[dict[str, Any]]:
    answer = await api.get(f"/runs/{run_id}/why")
    assert answer.status_code == 200
    reasons = answer.json()["reasons"]
    assert all(reason["message"].endswith(".") for reason in reasons)
    return reasons


async def codes(api: httpx2.AsyncClient, run_id: str) -> list[str]:
    return [reason["code"] for reason in await why(api, run_id)]


async def test_it_is_scheduled(api: httpx2.AsyncClient) -> None:
    [reason] = await why(api, await submit(api, schedule_at="2999-01-01T00:00:00Z"))
    assert (reason["code"], reason["until"]) == ("scheduled", "2999-01-01T00:00:00Z")


async def test_it_waits_for_children(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = await submit(api, "parent")
    await workshop.drain()
    [reason] = await why(api, run)
    assert (reason["code"], reason["until"]) == ("waits_for_children", None)
    assert "waits for 2 of its 3 children to end" in reason["message"]
    assert (await api.get(f"/runs/{run}")).json()["schedule_at"] is None


@pytest.mark.parametrize("timeout", [None, 3600])
async def test_it_waits_for_a_signal(api: httpx2.AsyncClient, workshop: Workshop, timeout: float | None) -> None:
    run = await submit(api, "approval", params={"timeout": timeout})
    await workshop.drain()
    [reason] = await why(api, run)
    assert (reason["code"], reason["key"]) == ("waits_for_signal", "approved")
    assert (reason["until"] is not None) == (" until 2" in reason["message"]) == (timeout is not None)
    await api.post(f"/runs/{run}/signals/approved")
    assert await codes(api, run) == ["next"]


async def test_it_is_backing_off(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = await submit(api, "flaky")
    await workshop.drain()
    [reason] = await why(api, run)
    assert reason["code"] == "backing_off"
    assert "Attempt 1 ended with: Connection" in reason["message"]
    assert reason["until"] is not None


async def test_it_was_asked_to_wait(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = await submit(api, "limited")
    for times in ("once", "2 times"):
        await workshop.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL")
        await workshop.drain()
        [reason] = await why(api, run)
        assert reason["code"] == "backing_off"
        assert f"It was asked to wait, {times}, which used no attempt" in reason["message"]
        assert "the last error is: Rate limited. Attempt 1 is not before 2" in reason["message"]
        assert reason["until"] == (await api.get(f"/runs/{run}")).json()["schedule_at"]
    await workshop.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL")
    assert await codes(api, run) == ["next"]


async def test_its_queue_is_paused(api: httpx2.AsyncClient) -> None:
    run = await submit(api)
    await api.post("/queues/default/pause", json={"reason": "moving house", "resume_at": "2999-01-01T00:00:00Z"})
    first, *_ = await why(api, run)
    assert (first["code"], first["until"]) == ("queue_paused", "2999-01-01T00:00:00Z")
    assert "by local" in first["message"] and "moving house" in first["message"]


async def test_its_lock_is_held(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    holder, waiting = await submit(api, lock="sheet"), await submit(api, lock="sheet")
    await start(workshop, holder)
    first, *_ = await why(api, waiting)
    assert (first["code"], first["run_id"], first["key"]) == ("lock_held", holder, "sheet")
    assert f"held by {holder} since 2" in first["message"]


async def test_its_lock_goes_to_another_run_first(api: httpx2.AsyncClient) -> None:
    first_in_line, waiting = await submit(api, lock="sheet"), await submit(api, lock="sheet")
    reasons = await why(api, waiting)
    assert [reason["code"] for reason in reasons] == ["lock_held", "behind"]
    assert (reasons[0]["run_id"], reasons[1]["ahead"]) == (first_in_line, 1)
    assert await codes(api, first_in_line) == ["next"]


async def test_as_many_of_its_key_are_running_as_may(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.drain()  # a worker has made the limits known
    running, waiting = [await submit(api, "narrow", params={"customer": "ada"}) for _ in range(2)]
    other = await submit(api, "narrow", params={"customer": "bo"})
    await start(workshop, running)
    first, *_ = await why(api, waiting)
    assert (first["code"], first["key"], first["until"]) == ("concurrency_limit", "narrow:ada", None)
    assert await codes(api, other) == ["next"]


async def test_the_next_place_of_its_key_is_estimated(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    past = await submit(api, "narrow", params={"customer": "ada"})
    await workshop.drain()
    await workshop.execute(
        "UPDATE action_runs SET finished_at = started_at + interval '1 hour' WHERE id = :id", id=past
    )
    running, waiting = [await submit(api, "narrow", params={"customer": "ada"}) for _ in range(2)]
    await start(workshop, running)
    first, *_ = await why(api, waiting)
    begun = await workshop.value("SELECT started_at + interval '1 hour' FROM action_runs WHERE id = :id", id=running)
    assert first["until"] == begun.isoformat().replace("+00:00", "Z")


async def test_as_many_of_its_key_have_started_as_may(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.drain()
    await submit(api, "slow")
    waiting = await submit(api, "slow")
    await workshop.drain()
    first, *_ = await why(api, waiting)
    assert (first["code"], first["key"]) == ("rate_limit", "slow")
    full = await workshop.value("SELECT full_at FROM limit_keys WHERE key = 'slow'")
    assert first["until"] == full.isoformat().replace("+00:00", "Z"), "the bucket has one token"


async def test_no_live_worker_listens_to_its_queue(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.execute("DELETE FROM procrastinate_workers")
    await live_worker(workshop, queues=["mail"])
    run = await submit(api)
    assert await codes(api, run) == ["no_worker", "next"]
    await live_worker(workshop, queues=["default"])
    assert await codes(api, run) == ["next"]
    await workshop.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    assert await codes(api, run) == ["no_worker", "next"]


async def test_no_live_worker_knows_its_action(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.execute("DELETE FROM procrastinate_workers")
    await live_worker(workshop, actions=["older"])
    assert await codes(api, await submit(api)) == ["action_unknown", "next"]


async def test_others_wait_before_it(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    past = await submit(api)
    await workshop.drain()
    await workshop.execute("UPDATE action_runs SET finished_at = started_at + interval '10 s' WHERE id = :id", id=past)
    for priority in (0, 0, 5):
        await submit(api, priority=priority)
    run = await submit(api)
    await submit(api, priority=-1)
    await submit(api, queue="other")
    [reason] = await why(api, run)
    assert (reason["code"], reason["ahead"]) == ("behind", 3)
    seconds = await workshop.value(
        "SELECT extract(epoch FROM CAST(:until AS text)::timestamptz - now())::float8", until=reason["until"]
    )
    assert seconds == pytest.approx(15, abs=5), "three of ten seconds each, in two places"


async def test_it_is_the_next(api: httpx2.AsyncClient) -> None:
    [reason] = await why(api, await submit(api))
    assert (reason["code"], reason["ahead"]) == ("next", 0)


async def test_it_is_running(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = await submit(api)
    await start(workshop, run)
    assert await codes(api, run) == ["running"]


async def test_it_has_ended(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    done, gone = await submit(api), await submit(api)
    await api.post(f"/runs/{gone}/cancel")
    await workshop.drain()
    assert await codes(api, done) == await codes(api, gone) == ["ended"]
    assert "has been cancelled" in (await why(api, gone))[0]["message"]


async def test_all_reasons_are_told_in_the_order_of_cause(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.drain()
    await workshop.execute("DELETE FROM procrastinate_workers WHERE id IN (SELECT id FROM workers)")
    other = await workshop.queue.job_manager.register_worker()
    assert other
    params = {"customer": "ada"}
    holder = await submit(api, "narrow", params=params, lock="sheet")
    await start(workshop, holder)
    run = await submit(api, "narrow", params=params, lock="sheet")
    await api.post("/queues/default/pause")
    assert await codes(api, run) == ["queue_paused", "lock_held", "concurrency_limit", "no_worker", "next"]


async def test_who_may_not_see_the_run_is_told_nothing(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    run = await submit(api, lock="sheet")
    mine = await submit(api, lock="sheet")
    await workshop.execute("UPDATE action_runs SET owner = 'bo' WHERE id = :id", id=run)
    await workshop.execute("UPDATE action_runs SET owner = 'ada' WHERE id = :id", id=mine)
    async with workshop.engine.connect() as connection:
        assert await queries.get_facts(connection, run, owner="ada", lease=30, cap=10) is None
        facts = await queries.get_facts(connection, mine, owner="ada", lease=30, cap=10)
        assert facts is not None and facts.ahead == 1 and facts.holder_id is None, "nor of the run of another"
    for unknown in ("run_20200101T000000Z_00000000", "x"):
        assert (await api.get(f"/runs/{unknown}/why")).status_code == 404


async def test_the_answer_reads_little_whatever_waits(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.execute(
        "INSERT INTO procrastinate_jobs (task_name, queue_name) SELECT 'echo', 'default' FROM generate_series(1, 20000)"
    )
    run = await submit(api)
    await workshop.execute("ANALYZE procrastinate_jobs")
    await workshop.execute("ANALYZE action_runs")
    reasons = await why(api, run)
    assert reasons[-1]["ahead"] == 1000
    arguments = {"run_id": run, "owner": None, "lease": 30, "cap": 1000}
    [row] = await workshop.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {_GET_FACTS}", **arguments)
    plan = root_of(row["QUERY PLAN"])
    assert scanned(plan, "procrastinate_jobs") < 1_100
    assert scanned(plan, "action_runs") < 2_100
