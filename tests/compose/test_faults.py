"""Containers are killed, stopped and restarted; runs go on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.compose.stack import Stack, eventually


@pytest.fixture
def worker(stack: Stack) -> Iterator[None]:
    """The test may end the worker: afterwards there is one again."""
    yield
    start_worker(stack)


def start_worker(stack: Stack) -> None:
    stack.compose("up", "--detach", "--no-deps", "--wait", "worker")


@pytest.mark.usefixtures("worker")
def test_a_run_whose_worker_was_killed_is_performed_again(stack: Stack) -> None:
    run_id = stack.submit("sleep", seconds=3)
    stack.has_begun(run_id)
    stack.compose("kill", "--signal=SIGKILL", "worker")
    assert stack.exit_code("worker") == 137
    start_worker(stack)
    run = stack.end_of(run_id)
    assert (run["state"], run["attempt"]) == ("succeeded", 2)


@pytest.mark.usefixtures("worker")
def test_a_worker_that_is_stopped_puts_its_runs_back(stack: Stack) -> None:
    run_id = stack.submit("sleep", seconds=5)
    stack.has_begun(run_id)
    stack.compose("stop", "worker")
    assert stack.exit_code("worker") == 0
    assert stack.run(run_id)["state"] == "queued"
    start_worker(stack)
    run = stack.end_of(run_id)
    assert (run["state"], run["attempt"]) == ("succeeded", 1)


def test_work_goes_on_after_the_database_was_restarted(stack: Stack) -> None:
    before = [stack.inspect(service)["State"]["Pid"] for service in ("api", "worker")]
    stack.compose("restart", "db")
    eventually(lambda: stack.api.get("/readyz").status_code == 200, within=15)
    assert stack.end_of(stack.submit("echo", message="still here"))["state"] == "succeeded"
    assert before == [stack.inspect(service)["State"]["Pid"] for service in ("api", "worker")]
