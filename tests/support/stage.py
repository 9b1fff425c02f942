"""A stage for the system tests: the services of others, played in a process of their own, and workers to kill."""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.eventually import eventually
from tests.support.processes import environment, free_port, running, worker_process

from app.config import Settings


@dataclass(frozen=True)
class Stage:
    """Everything but a worker. The services outlive the workers, and count what they were asked."""

    settings: Settings
    engine: AsyncEngine
    folder: Path
    services: str
    """Where they answer."""
    given: dict[str, str]
    """To each worker, in its environment."""

    @property
    def log(self) -> Path:
        """What its processes write."""
        return self.folder / "log"

    def worker(self, **more: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        given = {"STUBS_URL": self.services, "DATA_DIR": str(self.folder)}
        return worker_process(self.settings, self.log, **given | self.given | more)

    async def kill_a_worker(self, when: Callable[[], Awaitable[Any]], **more: str) -> None:
        """Start a worker, and kill it when that has come."""
        with self.worker(**more) as worker:
            await when()
            worker.kill()
            worker.wait()

    async def calls(self, by: str = "vendor", *, answered: bool = False) -> Counter[str]:
        """How often each service was asked, or what was asked for, by the last word of its path; or was answered."""
        async with httpx2.AsyncClient(trust_env=False) as http:
            calls = (await http.get(f"{self.services}/calls")).json()
        return Counter(call[by].rpartition("/")[2] for call in calls if not answered or call["trouble"] is None)

    def stored(self, steps: int) -> Callable[[], Awaitable[Any]]:
        """Waits until so many steps are stored."""

        async def are_stored() -> bool:
            return await self.value("SELECT count(*) FROM run_steps") >= steps

        return lambda: eventually(are_stored, within=60)

    def asked(self, what: str, times: int = 1, by: str = "vendor") -> Callable[[], Awaitable[Any]]:
        """Waits until somebody was asked so often."""

        async def was_asked() -> bool:
            return (await self.calls(by))[what] >= times

        return lambda: eventually(was_asked, within=60)

    async def execute(self, *statements: str) -> None:
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)

    async def value(self, statement: str) -> Any:
        async with self.engine.connect() as connection:
            return await connection.scalar(text(statement))


@contextlib.asynccontextmanager
async def staged(settings: Settings, engine: AsyncEngine, folder: Path, **given: str) -> AsyncIterator[Stage]:
    """A stage in that folder, whose services answer."""
    port = free_port()
    stage = Stage(settings, engine, folder, f"http://127.0.0.1:{port}", given)
    with running("-m", "app.outbound.stubs", str(port), env=environment(settings), log=stage.log):

        async def answers() -> bool:
            with contextlib.suppress(httpx2.TransportError):
                await stage.calls()
                return True
            return False

        await eventually(answers, within=60)
        yield stage
