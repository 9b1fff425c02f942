"""Somebody at a command line, with an API and a worker at the other end."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import URL
from tests.conftest import TEMPLATE, _created
from tests.support.processes import api_process, environment, worker_process

from app.config import Settings


@dataclass(frozen=True)
class Terminal:
    """Runs `runledger …` with an environment of its own."""

    env: dict[str, str]

    def run(self, *arguments: str, typed: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """The command's exit code and output; `typed` is its stdin."""
        return subprocess.run(
            self._command(arguments), env=self.env | env, input=typed, capture_output=True, text=True, timeout=60
        )

    def json(self, *arguments: str, **env: str) -> Any:
        """What the command says with --json, when it succeeds."""
        finished = self.run(*arguments, "--json", **env)
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)

    @contextlib.contextmanager
    def started(self, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """The command while it runs; told to stop, and if need be killed, at the end of the block."""
        with subprocess.Popen(
            self._command(arguments),
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()

    def submit(self, action: str, **params: Any) -> str:
        """A run's id."""
        inputs = [part for name, value in params.items() for part in ("-i", f"{name}={json.dumps(value)}")]
        finished = self.run("run", action, *inputs)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.strip()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "app.cli", *arguments]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(template: URL, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Terminal]:
    """An API and a worker, shared by the tests that only submit runs of their own."""
    log = tmp_path_factory.mktemp("house") / "log"
    async with _created(template, template=TEMPLATE) as database:
        settings = settings_for(database)
        with worker_process(settings, log):
            async with api_process(settings, log) as (url, _):
                port = url.rpartition(":")[2]
                yield Terminal(environment(settings, RUNLEDGER_URL=url, PORT=port, COLUMNS="80"))


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
