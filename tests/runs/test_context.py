"""What an action may do with its run: progress, log, step. All of it fenced."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import BaseModel
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.errors import Unavailable
from app.runs import service, submission
from app.runs.context import Run
from app.runs.schemas import RunCreate
from app.runs.submission import Origin


class Page(BaseModel):
    number: int
    text: str


async def test_progress_is_coalesced_and_its_last_word_is_kept(workshop: Workshop) -> None:
    @workshop.action()
    async def counts(run: Run) -> None:
        for n in range(1001):
            await run.progress(n, 1000, f"{n} done")

    run = await workshop.submit("counts")
    await workshop.drain()
    run = await workshop.get(run)
    assert run.progress is not None
    assert run.progress.model_dump() == {"done": 1000, "total": 1000, "percent": 100, "message": "1000 done"}
    written = await workshop.events(run, "progress")
    assert written[0]["data"]["done"] == 0
    assert 2 <= len(written) < 100


async def test_progress_that_is_not_followed_by_more_is_written_soon(workshop: Workshop) -> None:
    go_on = asyncio.Event()

    @workshop.action()
    async def waits(run: Run) -> None:
        await run.progress(1, 10)
        await run.progress(2, 10)
        await go_on.wait()

    run = await workshop.submit("waits")

    async def both() -> bool:
        return len(await workshop.events(run, "progress")) == 2

    async with workshop.working():
        await eventually(both)
        go_on.set()


async def test_progress_that_cannot_be_written_does_not_fail_the_run(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> bool:
        raise OSError("the database is away")

    @workshop.action(retry=Retry(max_attempts=1))
    async def counts(run: Run) -> str:
        await run.progress(1, 2)
        await run.progress(2, 2)
        return "done"

    monkeypatch.setattr("app.runs.queries.append_event", away)
    run = await workshop.submit("counts")
    await workshop.drain()
    assert (await workshop.get(run)).result == "done"


async def test_a_log_line_is_an_event_with_its_fields(workshop: Workshop) -> None:
    @workshop.action()
    async def talks(run: Run) -> None:
        await run.log("found\x00 it", level="warning", pages=3)

    run = await workshop.submit("talks")
    await workshop.drain()
    (event,) = await workshop.events(run, "log")
    assert event["data"] == {"level": "warning", "message": "found it", "pages": 3}


async def test_a_finished_step_is_not_repeated_by_a_retry(workshop: Workshop) -> None:
    calls: list[str] = []

    async def fetch(number: int) -> Page:
        calls.append(f"fetch {number}")
        return Page(number=number, text="é")

    async def publish(page: Page) -> None:
        calls.append("publish")
        if calls.count("publish") == 1:
            raise Unavailable("later")

    @workshop.action(retry=Retry(max_attempts=2))
    async def pipeline(run: Run) -> Page:
        page = await run.step("fetch", fetch, 7)
        await run.step("publish", publish, page)
        return page

    run = await workshop.submit("pipeline")
    await workshop.drain_all()
    assert calls == ["fetch 7", "publish", "publish"]
    assert (await workshop.get(run)).result == {"number": 7, "text": "é"}
    assert [event["data"]["name"] for event in await workshop.events(run, "step")] == ["fetch", "publish"]


async def test_a_step_that_returned_nothing_is_finished_too(workshop: Workshop) -> None:
    calls: list[int] = []

    async def once() -> None:
        calls.append(1)

    @workshop.action(retry=Retry(max_attempts=2))
    async def job(run: Run) -> None:
        await run.step("once", once)
        if run.attempt == 1:
            raise Unavailable("later")

    run = await workshop.submit("job")
    await workshop.drain_all()
    assert (await workshop.get(run)).state == "succeeded"
    assert calls == [1]


async def test_what_was_finished_before_a_manual_retry_is_kept(workshop: Workshop) -> None:
    calls: list[int] = []

    async def once() -> int:
        calls.append(1)
        return 5

    @workshop.action(retry=Retry(max_attempts=1))
    async def job(run: Run) -> int:
        value = await run.step("once", once)
        if run.attempt == 1:
            raise Unavailable("later")
        return value

    run = await workshop.submit("job")
    await workshop.drain()
    assert (await workshop.get(run)).state == "failed"
    await service.retry(workshop.engine, run.id)
    await workshop.drain()
    assert (await workshop.get(run)).result == 5
    assert calls == [1]


@pytest.mark.parametrize("write", ["progress", "log", "step"])
async def test_a_zombie_writes_nothing(workshop: Workshop, write: str) -> None:
    """An attempt that lost its run is ended by its next write, which touches no row."""
    started, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def nothing() -> None: ...

    @workshop.action()
    async def slow(run: Run) -> str:
        if run.attempt > 1:
            return "second"
        started.set()
        await go_on.wait()
        try:
            match write:
                case "progress":
                    await run.progress(1)
                case "log":
                    await run.log("still here")
                case _:
                    await run.step("late", nothing)
        except Exception:
            pytest.fail("an action's own except must not see that its run is lost")
        finally:
            ended.set()
        return "zombie"

    run = await workshop.submit("slow")
    # The watch does not end it first.
    async with workshop.working(abort_job_polling_interval=600):
        await started.wait()
        await workshop.execute("UPDATE procrastinate_jobs SET status = 'todo', attempts = attempts + 1")
        await workshop.reaches(run, "succeeded")
        before = await workshop.events(run)
        go_on.set()
        await ended.wait()
    assert await workshop.events(run) == before
    assert (await workshop.get(run)).result == "second"


@pytest.mark.parametrize("owner", ["ada", None])
async def test_a_run_knows_whose_it_is(workshop: Workshop, owner: str | None) -> None:
    @workshop.action()
    async def says(run: Run) -> str | None:
        return run.owner

    submitted = await submission.submit(
        workshop.intake, workshop.action["says"], RunCreate(action="says"), Origin(owner)
    )
    await workshop.drain()
    run = await workshop.get(submitted)
    assert (run.state, run.result) == ("succeeded", owner)
