"""How fast runs are accepted: one by one over 32 connections, and by the thousand."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path

from server import Server

SECONDS = 5
CONNECTIONS = 32
BATCH = 1_000
ONE = {"action": "echo", "params": {"message": "hello"}}
LOAD = Path(__file__).parent / "load.py"


def submit(server: Server, jobs: int) -> dict[str, float]:  # noqa: ARG001 - each measurement has this shape
    """Requests a second that one API process answers, each with a run that is stored."""
    return {
        "POST /runs": _ours(server, "/runs", ONE, CONNECTIONS),
        "the same app, without a database": _of_peer(server, "undurable", migrated=True),
        "bare FastAPI, without a database": _of_peer(server, "plain_api", "nothing"),
        "bare FastAPI, one INSERT": _of_peer(server, "plain_api", "insert"),
        "bare FastAPI, defer_async": _of_peer(server, "plain_api", "defer"),
    }


def batch(server: Server, jobs: int) -> dict[str, float]:
    """Runs a second that are accepted 1,000 at a time, one request after the other."""
    ours = BATCH * _ours(server, "/runs/batch", {"runs": [ONE] * BATCH}, 1)
    server.fresh(migrated=False)
    return {"POST /runs/batch": ours, "bare batch_defer_async": server.run("bare", "batch", jobs, BATCH)["rate"]}


def _ours(server: Server, path: str, body: object, connections: int) -> float:
    server.fresh(migrated=True)
    with _serving([sys.executable, "-m", "app.cli", "api", "--port"], server) as port:
        return _rate(port, path, body, connections)


def _of_peer(server: Server, contender: str, *arguments: str, migrated: bool = False) -> float:
    server.fresh(migrated=migrated)
    with _serving(server.command(contender), server, *arguments) as port:
        return _rate(port, "/runs", ONE, CONNECTIONS)


@contextlib.contextmanager
def _serving(command: list[str], server: Server, *arguments: str) -> Generator[int]:
    """An API in a process of its own, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = server.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [*command, str(port), *arguments],
        env={**os.environ, "DATABASE_URL": url, "LOG_LEVEL": "WARNING"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _answers(port):
            if process.poll() is not None:
                raise RuntimeError(f"{command[1:]} ended with {process.returncode}")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=1).status == 200
    except (urllib.error.URLError, OSError):
        return False


def _rate(port: int, path: str, body: object, connections: int) -> float:
    arguments = map(str, (port, path, connections, SECONDS))
    sent = subprocess.run([sys.executable, str(LOAD), *arguments], input=json.dumps(body).encode(), capture_output=True)
    if sent.returncode:
        raise RuntimeError(sent.stderr[-3000:].decode())
    return json.loads(sent.stdout)["rate"]
