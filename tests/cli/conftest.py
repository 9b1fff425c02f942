"""Somebody at a command line, with an API and a worker at the other end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import pytest_asyncio
from sqlalchemy import URL
from tests.conftest import TEMPLATE, _created
from tests.support.eventually import eventually
from tests.support.processes import api_process, environment, stopped_after, worker_process

from app.cli import main
from app.config import Settings, get_settings


@dataclass(frozen=True)
class Finished:
    """How a command ended, and what it said."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Terminal:
    """Runs `runledger …` with an environment of its own."""

    env: dict[str, str]

    def run(self, *arguments: str, typed: str = "", **env: str) -> Finished:
        """A command that ends by itself, within this process: importing all it needs takes longer than it does.

        `typed` is its stdin.
        """
        out, err, before = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
        get_settings.cache_clear()
        with (
            mock.patch.dict(os.environ, self.env | env, clear=True),
            mock.patch("sys.argv", ["runledger", *arguments]),
            mock.patch("sys.stdin", io.StringIO(typed)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        signal.signal(signal.SIGTERM, before)
        get_settings.cache_clear()
        return Finished(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    @contextlib.contextmanager
    def started(self, *arguments: str, **env: str) -> Generator[subprocess.Popen[str]]:
        """A command in a process of its own; told to stop, and if need be killed, at the end of the block."""
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *arguments],
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts what runs in its background, such as these tests, deaf to Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        with stopped_after(process):
            yield process

    def json(self, *arguments: str, **env: str) -> Any:
        """What a command says with --json, when it succeeds."""
        finished = self.run(*arguments, "--json", **env)
        assert finished.code == 0, finished.stderr
        return json.loads(finished.stdout)

    def submit(self, action: str, **params: Any) -> str:
        """A run's id."""
        inputs = [part for name, value in params.items() for part in ("-i", f"{name}={json.dumps(value)}")]
        finished = self.run("run", action, *inputs)
        assert finished.code == 0, finished.stderr
        return finished.stdout.strip()


def settle(process: subprocess.Popen[str]) -> Finished:
    """Wait until it, and whatever else writes to its output, has ended."""
    stdout, stderr = process.communicate(timeout=40)
    return Finished(process.returncode, stdout, stderr)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(template: URL, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Terminal]:
    """An API and a worker, shared by the tests that only submit runs of their own."""
    log = tmp_path_factory.mktemp("house") / "log"
    async with _created(template, template=TEMPLATE) as database:
        settings = settings_for(database)
        with worker_process(settings, log) as worker:
            async with api_process(settings, log) as (url, _):

                async def worker_has_started() -> bool:
                    assert worker.poll() is None, log.read_text()
                    return "Worker started" in log.read_text()

                await eventually(worker_has_started)
                port = url.rpartition(":")[2]
                yield Terminal(environment(settings, RUNLEDGER_URL=url, PORT=port))


@pytest.fixture
def alone(settings: Settings) -> Terminal:
    """A command line with a migrated database, and nothing that runs."""
    return Terminal(environment(settings))


@pytest.fixture
def blank(empty_database: URL) -> Terminal:
    """A command line with a database that has no schema."""
    return Terminal(environment(settings_for(empty_database)))


def settings_for(database: URL) -> Settings:
    return Settings(
        _env_file=None,  # pyright: ignore[reportCallIssue]
        environment="test",
        database_url=database.render_as_string(hide_password=False),
        poll_seconds=0.2,
        heartbeat_seconds=0.5,
        grace_seconds=2,
    )
