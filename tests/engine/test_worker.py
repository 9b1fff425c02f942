"""The worker: how attempts end, and that nothing ends the worker."""

from __future__ import annotations

import asyncio

from procrastinate.jobs import Status

from app.engine.retry import Retry
from tests.support.workshop import Workshop


async def test_a_submitted_run_is_performed_and_its_result_is_kept(workshop: Workshop) -> None:
    @workshop.action()
    async def greet(name: str) -> str:
        return f"hello {name}"

    run = await workshop.submit("greet", name="Ada")
    assert run.state == "queued"
    await workshop.drain()

    run = await workshop.get(run)
    assert (run.state, run.result, run.attempt, run.error) == ("succeeded", "hello Ada", 1, None)
    assert await workshop.states(run) == ["queued", "running", "succeeded"]
