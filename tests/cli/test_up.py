"""`runledger up`: everything starts, serves, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator

import httpx2
import pytest
from tests.cli.conftest import Terminal, settle
from tests.support.processes import free_port


@pytest.fixture
def up(blank: Terminal) -> Iterator[subprocess.Popen[str]]:
    """`runledger up` on a database without a schema, and on a free port."""
    with blank.started("up", PORT=str(free_port())) as process:
        yield process


def test_up_migrates_serves_and_stops_on_sigterm_leaving_nothing(up: subprocess.Popen[str]) -> None:
    url = url_when_up(up)
    assert httpx2.get(f"{url}/readyz").json()["status"] == "ready"
    run = httpx2.post(f"{url}/runs", json={"action": "echo", "params": {"message": "hi"}}).json()
    events = httpx2.get(f"{url}/runs/{run['id']}/events", timeout=20).text
    assert '"state":"succeeded"' in events
    up.send_signal(signal.SIGTERM)
    finished = settle(up)
    assert finished.code == 0
    assert finished.stderr.endswith("Stopped.\n")


def test_up_ends_when_the_api_ends_and_says_so(up: subprocess.Popen[str]) -> None:
    url_when_up(up)
    os.kill(api_pid(up), signal.SIGKILL)
    finished = settle(up)
    assert finished.code == 1
    assert "The API has ended with exit code -9" in finished.stderr


def test_up_says_that_the_port_is_taken_before_it_starts_anything(blank: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = blank.run("up", PORT=str(port))
    assert (finished.code, finished.stdout) == (1, "")
    assert finished.stderr == (
        f"Port {port} on 127.0.0.1 is taken.\nChoose another with PORT={port + 1} before the command.\n"
    )


def test_up_does_not_serve_strangers_by_accident(blank: Terminal) -> None:
    finished = blank.run("up", HOST="0.0.0.0", PORT="0")
    assert finished.code == 78
    assert "ROADMAP_AI_SECRET" in finished.stderr


def test_up_says_that_the_database_does_not_answer(blank: Terminal) -> None:
    finished = blank.run("up", PORT="0", DATABASE_URL=f"postgresql://u:hidden@127.0.0.1:{free_port()}/x")
    assert (finished.code, finished.stdout) == (1, "")
    assert "DATABASE_URL" in finished.stderr
    assert "hidden" not in finished.stderr


def test_the_api_alone_stops_on_sigterm_with_exit_code_0(alone: Terminal) -> None:
    with alone.started("api", "--port", "0") as api:
        lines_until(api, "Uvicorn running")
        api.terminate()
        assert settle(api).code == 0


def url_when_up(up: subprocess.Popen[str]) -> str:
    assert up.stdout is not None
    announced = re.search(r"http://127\.0\.0\.1:\d+", up.stdout.readline())
    assert announced, settle(up).stderr
    return announced[0]


def api_pid(up: subprocess.Popen[str]) -> int:
    started = re.search(r"Started server process \[(\d+)\]", lines_until(up, "Started server process"))
    assert started
    return int(started[1])


def lines_until(process: subprocess.Popen[str], words: str) -> str:
    """The first line of stderr with these words."""
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)
