"""Plain functions as actions: in a child process, which can be killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support import plain
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.runs import service
from app.runs.context import Run


async def test_a_plain_function_is_performed_in_another_process(workshop: Workshop) -> None:
    plain.register(workshop.action, "pid")
    run = await workshop.submit("pid")
    await workshop.drain()
    run = await workshop.get(run)
    assert run.state == "succeeded"
    assert run.result != os.getpid()


async def test_what_a_plain_function_raises_is_kept_as_its_problem(workshop: Workshop) -> None:
    plain.register(workshop.action, "refuse", retry=Retry(max_attempts=1))
    run = await workshop.submit("refuse")
    await workshop.drain()
    run = await workshop.get(run)
    assert run.error is not None
    assert (run.error["type"], run.error["detail"]) == ("/problems/value", "not this one")


async def test_a_plain_function_whose_process_dies_fails_and_its_worker_lives(workshop: Workshop) -> None:
    plain.register(workshop.action, "die", retry=Retry(max_attempts=1))
    plain.register(workshop.action, "pid")
    run, next_one = await workshop.submit("die"), await workshop.submit("pid")
    await workshop.drain()
    assert (await workshop.get(run)).state == "failed"
    assert (await workshop.get(next_one)).state == "succeeded"


async def test_a_plain_function_that_blocks_is_killed_when_its_run_is_cancelled(
    workshop: Workshop, tmp_path: Path
) -> None:
    plain.register(workshop.action, "block")
    run = await workshop.submit("block", seconds=600, pid_file=str(tmp_path / "pid"))
    async with workshop.working():
        child = await eventually(lambda: _written(tmp_path / "pid"))
        await service.cancel(workshop.engine, workshop.queue.job_manager, run.id)
        await workshop.reaches(run, "cancelled")
        await eventually(lambda: _has_ended(child))


async def test_a_plain_function_that_overruns_its_timeout_is_killed(workshop: Workshop, tmp_path: Path) -> None:
    plain.register(workshop.action, "block", timeout=0.5, retry=Retry(max_attempts=1))
    run = await workshop.submit("block", seconds=600, pid_file=str(tmp_path / "pid"))
    async with workshop.working():
        run = await workshop.reaches(run, "failed")
    assert run.error is not None
    assert run.error["type"] == "/problems/timeout"


def test_a_plain_function_inside_another_is_refused_with_advice(workshop: Workshop) -> None:
    with pytest.raises(TypeError, match="define it in a module"):

        @workshop.action()
        def nested() -> None: ...


def test_a_plain_function_that_wants_its_run_is_refused_with_advice(workshop: Workshop) -> None:
    with pytest.raises(TypeError, match="make it async"):

        @workshop.action()
        def wants(run: Run) -> None: ...


async def _written(pid_file: Path) -> int:
    return int(pid_file.read_text() or 0) if pid_file.exists() else 0


async def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
