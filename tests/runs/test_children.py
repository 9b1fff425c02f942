"""Children: spawned once, waited for without a worker, and no end of theirs is missed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.errors import Unavailable
from app.runs import children, service, submission
from app.runs.context import Run
from app.runs.schemas import RunCreate, RunRead


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def double(number: int) -> int:
        return 2 * number

    @workshop.action(retry=Retry(max_attempts=1))
    async def fail() -> None:
        raise ValueError("no luck")

    @workshop.action()
    async def never() -> None:
        await asyncio.Event().wait()

    @workshop.action()
    async def double_all(run: Run, numbers: list[int]) -> list[int]:
        return [each.result for each in await run.gather([("double", {"number": n}) for n in numbers])]

    @workshop.action(children.CANCEL_CHILDREN)
    async def cancel_children(run: Run, run_id: str) -> int:
        manager = workshop.queue.job_manager
        return await children.cancel_orphans(workshop.engine, manager, run_id, asker_id=run.id)


async def children_of(workshop: Workshop, run: RunRead) -> list[RunRead]:
    """In the order in which they were spawned."""
    page = await service.list_page(workshop.engine, limit=200, cursor=None, parent_id=run.id)
    return page.items[::-1]


async def test_a_run_waits_for_its_children_and_gets_their_results_in_order(workshop: Workshop) -> None:
    run = await workshop.submit("double_all", numbers=[3, 1, 2])
    await workshop.drain()
    done = await workshop.get(run)
    assert (done.state, done.result, done.attempt) == ("succeeded", [6, 2, 4], 1)
    spawned = await children_of(workshop, run)
    assert [child.params["number"] for child in spawned] == [3, 1, 2]
    assert {child.parent_id for child in spawned} == {run.id}


async def test_a_run_that_waits_needs_no_worker(workshop: Workshop) -> None:
    """One slot is enough for a run, its children and theirs."""

    @workshop.action()
    async def tree(run: Run, depth: int) -> int:
        if depth == 0:
            return 1
        below = await run.gather([("tree", {"depth": depth - 1})] * 2)
        return 1 + sum(each.result for each in below)

    run = await workshop.submit("tree", depth=3)
    await workshop.drain(concurrency=1)
    assert (await workshop.get(run)).result == 15


async def test_a_hundred_children_wake_their_parent_once(workshop: Workshop) -> None:
    run = await workshop.submit("double_all", numbers=list(range(100)))
    await workshop.drain()
    assert (await workshop.get(run)).result == [2 * n for n in range(100)]
    assert await workshop.states(run) == ["queued", "running", "scheduled", "queued", "running", "succeeded"]


async def test_two_workers_share_the_children(workshop: Workshop) -> None:
    runs = [await workshop.submit("double_all", numbers=list(range(20))) for _ in range(10)]
    async with workshop.working(concurrency=3), workshop.working(concurrency=3):
        for run in runs:
            await workshop.reaches(run, "succeeded")
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE action = 'double'") == 200
    assert await workshop.value("SELECT count(*) FROM run_waits") == 0


async def test_a_run_that_waits_says_so_and_tells_no_time(workshop: Workshop) -> None:
    @workshop.action()
    async def parent(run: Run) -> None:
        await run.gather([("double", {"number": 1}), ("double", {"number": 2})])

    run = await workshop.submit("parent")
    await workshop.queue.run_worker_async(wait=False, concurrency=1, queues=["default"], install_signal_handlers=False)
    told = [event["data"] for event in await workshop.events(run, "state")]
    assert told[2] == {"state": "scheduled", "attempt": 0, "waits_for": {"children": 2}}


async def test_a_later_attempt_finds_its_children(workshop: Workshop) -> None:
    seen: list[list[str]] = []

    @workshop.action(retry=Retry(max_attempts=3))
    async def parent(run: Run) -> int:
        ids = [await run.spawn("double", {"number": n}) for n in (1, 2)]
        ids.append(await run.spawn("double", {"number": 3}, key="third"))
        seen.append(ids)
        if run.attempt < 3:
            raise Unavailable("later")
        return sum(each.result for each in await run.gather(ids))

    run = await workshop.submit("parent")
    await workshop.drain_all()
    assert (await workshop.get(run)).result == 12
    assert len(seen) >= 3 and seen == [seen[0]] * len(seen)
    assert [child.id for child in await children_of(workshop, run)] == seen[0]


async def test_a_spawn_that_comes_out_different_is_refused(workshop: Workshop) -> None:
    @workshop.action(retry=Retry(max_attempts=2))
    async def parent(run: Run) -> None:
        await run.spawn("double", {"number": run.attempt})
        raise Unavailable("later")

    run = await workshop.submit("parent")
    await workshop.drain_all()
    done = await workshop.get(run)
    assert done.error is not None
    assert (done.state, done.attempt) == ("failed", 2)
    assert "give the spawn a key" in done.error["detail"]
    assert len(await children_of(workshop, run)) == 1


@pytest.mark.parametrize(
    ("action", "params", "problem"),
    [("nothing", {}, "unknown-action"), ("double", {"number": "x"}, "invalid-input")],
)
async def test_a_child_that_cannot_be_is_refused_at_once(
    workshop: Workshop, action: str, params: dict[str, str], problem: str
) -> None:
    @workshop.action()
    async def parent(run: Run) -> None:
        await run.gather([("double", {"number": 1}), (action, dict(params))])

    run = await workshop.submit("parent")
    await workshop.drain()
    done = await workshop.get(run)
    assert done.error is not None
    assert (done.state, done.attempt, done.error["type"]) == ("failed", 1, f"/problems/{problem}")
    assert await children_of(workshop, run) == []


async def test_only_children_are_waited_for(workshop: Workshop) -> None:
    @workshop.action()
    async def parent(run: Run, of: str) -> None:
        await run.gather([of])

    stranger = await workshop.submit("double", number=1)
    run = await workshop.submit("parent", of=stranger.id)
    await workshop.drain()
    done = await workshop.get(run)
    assert done.error is not None
    assert done.error["detail"].startswith(f"{stranger.id} is no child of this run")


async def test_children_belong_to_whom_their_parent_belongs(workshop: Workshop) -> None:
    origin = submission.Origin(owner="ada", trace_context={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    request = RunCreate(action="double_all", params={"numbers": [1]})
    run = await submission.submit(workshop.intake, workshop.action["double_all"], request, origin)
    await workshop.drain()
    [child] = await children_of(workshop, run)
    assert child.trace_id == "a" * 32
    assert await workshop.value("SELECT owner FROM action_runs WHERE id = :id", id=child.id) == "ada"


async def test_the_first_failure_cancels_the_others_and_fails_the_run(workshop: Workshop) -> None:
    @workshop.action()
    async def parent(run: Run) -> None:
        await run.gather([("never", {}), ("fail", {})])

    run = await workshop.submit("parent")
    async with workshop.working():
        done = await workshop.reaches(run, "failed")
        assert done.error is not None
        assert done.error["type"] == "/problems/child-failed"
        never, failed = await children_of(workshop, run)
        assert failed.id in done.error["detail"] and "Value" in done.error["detail"]
        await workshop.reaches(never, "cancelled")
    assert done.attempt == 1


async def test_all_are_waited_for_if_failures_are_to_be_looked_at(workshop: Workshop) -> None:
    @workshop.action()
    async def parent(run: Run) -> list[tuple[str, int | None, str | None]]:
        outcomes = await run.gather([("fail", {}), ("double", {"number": 1})], policy="continue")
        return [(each.state, each.result, (each.error or {}).get("detail")) for each in outcomes]

    run = await workshop.submit("parent")
    await workshop.drain()
    assert (await workshop.get(run)).result == [["failed", None, "no luck"], ["succeeded", 2, None]]


@pytest.mark.parametrize("policy", ["cancel", "continue"])
async def test_children_that_have_ended_are_not_waited_for(workshop: Workshop, policy: str) -> None:
    @workshop.action(retry=Retry(max_attempts=2))
    async def parent(run: Run) -> int:
        child = await run.spawn("double", {"number": 4})
        if run.attempt == 1:
            raise Unavailable("later")
        [outcome] = await run.gather([child], policy=policy)  # pyright: ignore[reportArgumentType]
        return outcome.result + len(await run.gather([]))

    run = await workshop.submit("parent")
    await workshop.drain_all()
    assert (await workshop.get(run)).result == 8
    assert "scheduled" not in await workshop.states(run)


async def test_steps_are_not_repeated_when_the_run_goes_on(workshop: Workshop) -> None:
    calls: list[str] = []

    async def note(what: str) -> str:
        calls.append(what)
        return what

    @workshop.action()
    async def parent(run: Run) -> None:
        await run.step("before", note, "before")
        await run.gather([("double", {"number": 1})])
        await run.step("between", note, "between")
        await run.gather([("double", {"number": 2})])

    run = await workshop.submit("parent")
    await workshop.drain(concurrency=1)
    assert (await workshop.get(run)).state == "succeeded"
    assert calls == ["before", "between"]


async def test_an_action_that_catches_every_exception_waits_all_the_same(workshop: Workshop) -> None:
    @workshop.action()
    async def parent(run: Run) -> int:
        try:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(run.gather([("double", {"number": 1})]))
            return waiting.result()[0].result
        except Exception:
            return -1

    run = await workshop.submit("parent")
    await workshop.drain()
    assert (await workshop.get(run)).result == 2


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE procrastinate_jobs SET status = 'succeeded' WHERE task_name = 'never'",
        "UPDATE procrastinate_jobs SET status = 'cancelled' WHERE task_name = 'never'",
        "DELETE FROM procrastinate_jobs WHERE task_name = 'never'",
    ],
)
async def test_whoever_ends_a_child_wakes_its_parent(workshop: Workshop, end: str) -> None:
    @workshop.action()
    async def parent(run: Run) -> str:
        [outcome] = await run.gather([("never", {})], policy="continue")
        return outcome.state

    await workshop.execute("INSERT INTO queue_pauses (queue_name, paused_by) VALUES ('asleep', 'test')")
    workshop.action["never"].task.queue = "asleep"
    run = await workshop.submit("parent")
    await workshop.drain()
    assert (await workshop.get(run)).state == "scheduled"
    await workshop.execute(end)
    assert (await workshop.get(run)).state == "queued"
    await workshop.drain()
    assert (await workshop.get(run)).result == ("succeeded" if "succeeded" in end else "cancelled")


async def test_cancelling_a_run_cancels_its_children_and_theirs(workshop: Workshop) -> None:
    @workshop.action()
    async def parent(run: Run, depth: int) -> None:
        below = ("never", {}) if depth == 0 else ("parent", {"depth": depth - 1})
        await run.gather([below, below])

    run = await workshop.submit("parent", depth=1)

    async def all_run() -> bool:
        return (
            await workshop.value("SELECT count(*) FROM action_runs WHERE action = 'never' AND state = 'running'") == 4
        )

    async with workshop.working():
        await eventually(all_run)
        cancelled = await service.cancel(workshop.engine, workshop.queue.job_manager, run.id)
        assert cancelled.state == "cancelled"

        async def all_cancelled() -> bool:
            left = "SELECT count(*) FROM action_runs WHERE action IN ('parent', 'never') AND state <> 'cancelled'"
            return await workshop.value(left) == 0

        await eventually(all_cancelled)
    assert await workshop.value("SELECT count(*) FROM run_waits") == 0


@pytest.mark.parametrize(
    ("state", "asker", "cancelled"),
    [("cancelled", None, 1), ("cancelled", "ada", 1), ("cancelled", "bob", 0), ("queued", None, 0)],
)
async def test_only_orphans_are_cancelled_and_only_by_whom_they_belong_to(
    workshop: Workshop, state: str, asker: str | None, cancelled: int
) -> None:
    @workshop.action()
    async def parent(run: Run) -> None:
        await run.spawn("never")

    workshop.action["never"].task.queue = "asleep"
    run = await workshop.submit("parent")
    await workshop.drain(queues=["default"])
    await workshop.execute("UPDATE action_runs SET owner = 'ada'")
    await workshop.execute(
        "UPDATE action_runs SET state = :state, finished_at = CASE WHEN :state = 'cancelled' THEN now() END "
        "WHERE id = :id",
        state=state,
        id=run.id,
    )
    request = RunCreate(action="cancel_children", params={"run_id": run.id})
    origin = submission.Origin(owner=asker)
    asked = await submission.submit(workshop.intake, workshop.action["cancel_children"], request, origin)
    await workshop.drain(queues=["default"])
    assert (await workshop.get(asked)).result == cancelled


async def test_a_run_that_fails_leaves_its_children_alone(workshop: Workshop) -> None:
    @workshop.action(retry=Retry(max_attempts=1))
    async def parent(run: Run) -> None:
        await run.spawn("double", {"number": 1})
        raise ValueError("no luck")

    run = await workshop.submit("parent")
    await workshop.drain()
    assert (await workshop.get(run)).state == "failed"
    [child] = await children_of(workshop, run)
    assert child.state == "succeeded"


async def test_a_run_that_waits_has_started_in_time(workshop: Workshop) -> None:
    @workshop.action()
    async def parent(run: Run) -> None:
        await workshop.execute("UPDATE action_runs SET start_deadline = now() WHERE id = :id", id=run.id)
        await run.gather([("double", {"number": 1})])

    run = await workshop.submit("parent")
    await workshop.drain()
    assert (await workshop.get(run)).state == "succeeded"


async def test_a_failed_child_that_is_retried_by_hand_lets_its_parent_succeed(workshop: Workshop) -> None:
    broken = [True]

    @workshop.action(retry=Retry(max_attempts=1))
    async def mended() -> str:
        if broken:
            raise ValueError("not yet")
        return "well"

    @workshop.action()
    async def parent(run: Run) -> str:
        [outcome] = await run.gather([("mended", {})])
        return outcome.result

    run = await workshop.submit("parent")
    await workshop.drain()
    assert (await workshop.get(run)).state == "failed"
    broken.clear()
    [child] = await children_of(workshop, run)
    await service.retry(workshop.engine, child.id)
    await service.retry(workshop.engine, run.id)
    await workshop.drain()
    assert (await workshop.get(run)).result == "well"


async def test_what_a_run_has_waited_for_is_not_pruned_before_it_has_ended(workshop: Workshop) -> None:
    run = await workshop.submit("double_all", numbers=[1])
    await workshop.drain()
    await workshop.execute("UPDATE action_runs SET created_at = '2001-01-01', finished_at = '2001-01-02'")
    await workshop.execute("UPDATE action_runs SET state = 'running', finished_at = NULL WHERE id = :id", id=run.id)
    assert await service.prune(workshop.engine, older_than=timedelta(days=1)) == 0
    await workshop.execute(
        "UPDATE action_runs SET state = 'failed', finished_at = created_at WHERE id = :id", id=run.id
    )
    assert await service.prune(workshop.engine, older_than=timedelta(days=1)) == 2
    assert await workshop.value("SELECT count(*) FROM run_children") == 0
