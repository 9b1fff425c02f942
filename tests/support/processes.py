"""Real processes: the API and workers as they run in production, with a test's settings."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

import httpx2
from tests.support.eventually import eventually
from tests.support.forks import SOCKET, Fork, inherited

from app.config import ROOT, Settings

_PASSED_ON = (
    "environment", "database_url", "poll_seconds", "heartbeat_seconds", "lease_seconds", "sweep_seconds",
    "grace_seconds", "db_timeout_seconds", "crash_cap",
)  # fmt: skip


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The environment of a process with these settings, and nothing of the developer's."""
    given = {name.upper(): str(getattr(settings, name)) for name in _PASSED_ON}
    return inherited() | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"} | given | more


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def running(*arguments: str, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python …`, writing to `log`; told to stop, and if need be killed, at the end of the block."""
    with log.open("ab") as output:
        process = _started(*arguments, env=env, output=output)
    with stopped_after(process):
        yield process


@contextlib.contextmanager
def stopped_after(process: subprocess.Popen[Any]) -> Iterator[None]:
    """It is told to stop, and if need be killed, at the end of the block."""
    with process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _started(*arguments: str, env: dict[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    if SOCKET in os.environ and arguments[0] == "-m":
        return Fork(*arguments, cwd=ROOT / "api", env=env, output=output)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT / "api",
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )


@contextlib.contextmanager
def worker_process(settings: Settings, log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m app.worker_main`."""
    with running("-m", "app.worker_main", env=environment(settings, **more), log=log) as process:
        yield process


@contextlib.asynccontextmanager
async def api_process(settings: Settings, log: Path, **more: str) -> AsyncIterator[tuple[str, subprocess.Popen[bytes]]]:
    """The API on a free port of loopback, ready; its URL and its process."""
    port = free_port()
    arguments = ("-m", "app.cli", "api", "--port", str(port))
    with running(*arguments, env=environment(settings, PORT=str(port), **more), log=log) as process:
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient() as client:

            async def answers() -> bool:
                assert process.poll() is None, log.read_text()
                with contextlib.suppress(httpx2.TransportError):
                    return (await client.get(f"{url}/livez")).status_code == 200
                return False

            await eventually(answers, within=60)
        yield url, process
