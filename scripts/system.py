"""A whole system of one's own, to kill and to start again: PostgreSQL in a temporary folder, API and worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from app.config import ROOT
from app.embedded import EmbeddedPostgres
from runledger_client import Client

SECRET = "of this verification only"
START_SECONDS = 60
# A dead worker's runs go on after seconds, not after half a minute.
IMPATIENT = {"POLL_SECONDS": "0.2", "HEARTBEAT_SECONDS": "0.5", "LEASE_SECONDS": "2", "SWEEP_SECONDS": "0.5"}


@dataclass
class System:
    """Its processes, and what they are started with."""

    env: dict[str, str]
    port: int
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Client:
        """A client of its API, which need not run yet."""
        return Client(self.url, secret=SECRET)

    async def start_api(self) -> None:
        """Start the API, and wait until it is ready."""
        api = self._start("app.cli", "api", "--port", str(self.port))
        async with asyncio.timeout(START_SECONDS), httpx2.AsyncClient(trust_env=False) as http:
            while not await _is_ready(http, self.url):
                if api.poll() is not None:
                    raise RuntimeError(f"The API has ended:\n{self.log.read_text()}")
                await asyncio.sleep(0.1)

    def start_worker(self) -> None:
        self._start("app.worker_main")

    def kill(self) -> None:
        """SIGKILL for whatever runs."""
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    async def crash(self) -> None:
        """Kill API and worker, and start both again."""
        self.kill()
        self.start_worker()
        await self.start_api()

    def _start(self, *module: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-um", *module], cwd=ROOT / "api", env=self.env, stdout=output, stderr=output
            )
        self.processes.append(process)
        return process


@contextlib.contextmanager
def fresh_system() -> Iterator[System]:
    """PostgreSQL with an empty schema; API and worker are started by whoever asks. Nothing is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="runledger-verify-"))
    # Open to the user that root runs PostgreSQL as.
    folder.chmod(0o755)
    postgres = EmbeddedPostgres(folder / "postgres")
    postgres.ensure_running()
    system = System(_environment(postgres), _free_port(), folder / "log")
    try:
        subprocess.run([sys.executable, "-m", "alembic", "upgrade", "heads"], cwd=ROOT, env=system.env, check=True)
        yield system
    finally:
        system.kill()
        postgres.release()
        shutil.rmtree(folder, ignore_errors=True)


def prove(claim: str, holds: bool) -> None:
    """Say that it holds, or say that it does not and end with 1."""
    print(f"{'ok    ' if holds else 'FAILED'} {claim}", flush=True)
    if not holds:
        raise SystemExit(1)


def _environment(postgres: EmbeddedPostgres) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    database = postgres.url.render_as_string(hide_password=False)
    return inherited | IMPATIENT | {"DATABASE_URL": database, "ROADMAP_AI_SECRET": SECRET}


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def _is_ready(http: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/readyz")).is_success
    except httpx2.TransportError:
        return False
