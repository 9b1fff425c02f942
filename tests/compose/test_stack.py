"""One image, three commands, one PostgreSQL: what a run goes through, and what a container may do."""

from __future__ import annotations

import pytest
from tests.compose.stack import Stack

TEXT = "to be or not to be " * 100


@pytest.mark.parametrize(("path", "word"), [("/livez", "alive"), ("/readyz", "ready"), ("/health", "healthy")])
def test_the_api_says_that_it_is_well(stack: Stack, path: str, word: str) -> None:
    answer = stack.api.get(path)
    assert (answer.status_code, answer.json()["status"]) == (200, word)


def test_a_run_is_performed(stack: Stack) -> None:
    run = stack.end_of(stack.submit("echo", message="hello"))
    assert (run["state"], run["result"], run["attempt"]) == ("succeeded", {"message": "hello"}, 1)


def test_a_run_is_watched_to_its_end(stack: Stack) -> None:
    events = list(stack.events(stack.submit("count_words", text=TEXT)))
    assert [data["state"] for name, data in events if name == "state"] == ["queued", "running", "succeeded"]
    assert sum(name == "step" for name, _ in events) == 10
    name, run = events[-1]
    assert (name, run["state"], run["progress"]["percent"]) == ("end", "succeeded", 100)


def test_the_documents_door_is_open(stack: Stack) -> None:
    answer = stack.api.post("/actions/run", json={"action": "echo", "params": {"message": "hello"}})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert stack.end_of(answer.json()["run_id"])["state"] == "succeeded"


@pytest.mark.parametrize("service", ["api", "worker"])
def test_nobody_is_root(stack: Stack, service: str) -> None:
    assert stack.within(service, "id", "-u").strip() == "10001"
    writable = stack.within(service, "find", "/srv", "-writable", "-not", "-path", "/srv/.data/*").strip()
    assert writable == "/srv/.data", "where files are kept, and nowhere else"


def test_api_worker_and_migration_are_one_image(stack: Stack) -> None:
    assert len({stack.inspect(service)["Image"] for service in ("api", "worker", "migrate")}) == 1


def test_the_migration_ran_once_and_ended_well(stack: Stack) -> None:
    assert stack.exit_code("migrate") == 0
    assert stack.inspect("migrate")["RestartCount"] == 0


def test_procrastinates_command_works_in_the_worker(stack: Stack) -> None:
    procrastinate = ("procrastinate", "--app=app.tasks.procrastinate_app")
    stack.submit("echo", message="hello")
    healthy = stack.within("worker", *procrastinate, "healthchecks")
    assert healthy.count("OK") == 3
    assert "echo" in stack.within("worker", *procrastinate, "shell", "list_jobs")


def test_our_own_command_works_in_the_worker(stack: Stack) -> None:
    assert "count_words" in stack.within("worker", "runledger", "actions")
