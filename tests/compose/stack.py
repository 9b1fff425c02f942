"""The test stack as its operator sees it: `docker compose` and HTTP."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx2

ROOT = Path(__file__).resolve().parents[2]
FINAL = ("succeeded", "failed", "cancelled")

T = TypeVar("T")


class Stack:
    """The containers of docker-compose.test.yml. COMPOSE_PROJECT_NAME names another project than the file does."""

    def compose(self, *arguments: str) -> str:
        return docker("compose", "--file", "docker-compose.test.yml", *arguments)

    def within(self, service: str, *command: str) -> str:
        """What a command says that is run in a service's container."""
        return self.compose("exec", "-T", service, *command)

    def inspect(self, service: str) -> dict[str, Any]:
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return json.loads(docker("inspect", container))[0]

    def exit_code(self, service: str) -> int:
        state = self.inspect(service)["State"]
        assert state["Status"] == "exited", state
        return state["ExitCode"]

    @cached_property
    def api(self) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://{self.compose('port', 'api', '8000').strip()}", timeout=10)

    def submit(self, action: str, **params: Any) -> str:
        """The id of a new run."""
        answer = self.api.post("/runs", json={"action": action, "params": params})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.api.get(f"/runs/{run_id}").raise_for_status().json()

    def end_of(self, run_id: str) -> dict[str, Any]:
        """A run, when it has ended."""
        return eventually(lambda: (run := self.run(run_id))["state"] in FINAL and run)

    def has_begun(self, run_id: str) -> None:
        """Wait for a run to be performed."""
        eventually(lambda: self.run(run_id)["progress"])

    def events(self, run_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The names and the data of a run's server-sent events."""
        with self.api.stream("GET", f"/runs/{run_id}/events") as stream:
            name = ""
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))


def docker(*arguments: str) -> str:
    """What a `docker` command says; an `AssertionError` with its complaint if it fails."""
    done = subprocess.run(["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def eventually(ask: Callable[[], T], *, within: float = 30) -> T:
    """Ask a container again and again until the answer is true, and return it."""
    give_up = time.monotonic() + within
    while not (answer := ask()):
        assert time.monotonic() < give_up, f"not within {within} s"
        time.sleep(0.1)
    return answer
