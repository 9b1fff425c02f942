"""A fault test's stage: worker processes, a way to submit, and the verdict that every test ends with."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from tests.faults import actions
from tests.faults.claims import Absence
from tests.faults.effects import Effects
from tests.faults.invariants import FINAL, violations
from tests.support.eventually import eventually
from tests.support.processes import environment, running
from tests.support.workshop import Workshop, open_workshop

from app.config import ROOT, Settings
from app.engine.watchdog import EXIT_CODE
from app.runs.schemas import RunCreate, RunRead

RECOVERED_WITHIN = 10
ENDS = {None, 0, EXIT_CODE, -signal.SIGKILL, -signal.SIGTERM}
"""How a worker may end: told to, giving up on a run or a blocked loop, killed, told to before it could listen."""
WORKER = "tests.faults.workshop_worker"

Process = subprocess.Popen[bytes]
T = TypeVar("T")


class Trial:
    """Submit runs, start workers, hurt something; the end of the test judges.

    `workshop` sees the database directly, whatever a test puts between it and the workers.
    """

    def __init__(self, workshop: Workshop, folder: Path) -> None:
        self.workshop = workshop
        self.log = folder / "workers.log"
        self.effects = Effects(folder / "effects")
        self.accepted: set[str] = set()
        self.waiting: set[str] = set()
        """Runs that are to be found waiting in the end."""
        self.workers: list[Process] = []
        self.absences: list[Absence] = []
        self.crash_cap = workshop.settings.crash_cap
        self._running = contextlib.ExitStack()
        self._folder = folder

    # Submitting --------------------------------------------------------------------------------------------

    async def submit(self, action: str, /, **params: Any) -> RunRead:
        """Submit with the action's own options; a param named `lock` is the run's lock too."""
        return await self.request(RunCreate(action=action, params=params, lock=params.get("lock")))

    async def request(self, request: RunCreate) -> RunRead:
        run = await self.workshop.request(request)
        self.accepted.add(run.id)
        return run

    async def submit_many(self, count: int, action: str, /, **params: Any) -> list[RunRead]:
        return [await self.submit(action, **params) for _ in range(count)]

    # Workers -----------------------------------------------------------------------------------------------

    def start_worker(self, database_url: str | None = None, **more: str) -> Process:
        """Start a worker process; `database_url` when it is to go another way than the test."""
        settings = self.workshop.settings
        if database_url:
            settings = settings.model_copy(update={"database_url": database_url})
        env = environment(
            settings,
            EFFECTS=str(self._folder / "effects"),
            WATCHDOG_SECONDS="6",
            PYTHONPATH=f"{ROOT}:{ROOT / 'api'}",
            **more,
        )
        worker = self._running.enter_context(running("-m", WORKER, env=env, log=self.log))
        self.workers.append(worker)
        self.crash_cap = int(env["CRASH_CAP"])
        return worker

    async def worker(self, database_url: str | None = None, **more: str) -> Process:
        """Start a worker, and wait until it is at work."""
        before = await self.registered()
        worker = self.start_worker(database_url, **more)

        async def at_work() -> bool:
            assert worker.poll() is None, self.log.read_text()
            return bool(await self.registered() - before)

        await patiently(at_work)
        return worker

    @contextlib.asynccontextmanager
    async def paused(self, worker: Process) -> AsyncGenerator[None]:
        """A worker that does nothing until the end of the block, and does not know it afterwards."""
        began = time.time()
        worker.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            worker.send_signal(signal.SIGCONT)
            self.absences.append(Absence(worker.pid, began, time.time()))

    async def registered(self) -> set[int]:
        rows = await self.workshop.fetch("SELECT id FROM procrastinate_workers")
        return {row["id"] for row in rows}

    @contextlib.asynccontextmanager
    async def supervised(self, count: int, database_url: str | None = None, **more: str) -> AsyncGenerator[list[int]]:
        """`count` workers, each replaced when it ends, as Docker or systemd would; the exit codes seen so far."""
        codes: list[int] = []

        async def keep() -> None:
            while True:
                worker = self.start_worker(database_url, **more)
                while worker.poll() is None:
                    await asyncio.sleep(0.05)
                codes.append(worker.returncode)
                self.absences.append(Absence(worker.pid, time.time()))

        keeping = [asyncio.create_task(keep()) for _ in range(count)]
        try:
            yield codes
        finally:
            for task in keeping:
                task.cancel()

    # Looking -----------------------------------------------------------------------------------------------

    async def begun(self, run: RunRead, times: int = 1) -> int:
        """Wait until an execution of the run has begun, and return the pid of its process."""

        async def there() -> int:
            performed = self.effects.of_run(run.id)
            return performed[times - 1].pid if len(performed) >= times else 0

        return await patiently(there)

    async def state(self, run: RunRead, wanted: str, *, within: float = 20) -> RunRead:
        async def there() -> RunRead | None:
            now = await self.workshop.get(run)
            return now if now.state == wanted else None

        found = await patiently(there, within=within)
        assert found
        return found

    async def ended(self, run: RunRead) -> None:
        async def there() -> bool:
            return (await self.workshop.get(run)).state.is_final

        await patiently(there)

    async def all_ended(self, *, within: float = 40) -> None:
        """Wait until no accepted run is open."""

        async def ended() -> bool:
            return not await self._open_runs()

        await patiently(ended, within=within)

    async def _open_runs(self) -> set[str]:
        rows = await self.workshop.fetch("SELECT id FROM action_runs WHERE NOT state = ANY(:final)", final=list(FINAL))
        return {row["id"] for row in rows} - self.waiting

    async def said(self, words: str) -> None:
        async def there() -> bool:
            return words in self.log.read_text()

        await patiently(there)

    async def exits(self, worker: Process, within: float = 20) -> int:
        """Wait for the process's end; its exit code."""
        return await asyncio.to_thread(worker.wait, within)

    def alive(self) -> list[Process]:
        return [worker for worker in self.workers if worker.poll() is None]

    # The verdict -------------------------------------------------------------------------------------------

    async def verdict(self, *, ended_within: float = 40) -> None:
        """Work flows again, everything accepted has ended, and every invariant holds."""
        for worker in self.alive():
            worker.send_signal(signal.SIGCONT)
        if not self.alive():
            await self.worker()
        fresh = await self.submit("instant")
        await self.state(fresh, "succeeded", within=RECOVERED_WITHIN)
        # As if the ticks of the next hour had been fired: no run of theirs is open when the rest has ended.
        await self.workshop.execute("UPDATE schedules SET last_tick = now() + interval '1 hour'")
        with contextlib.suppress(TimeoutError):  # what is open is told below, by name
            await self.all_ended(within=ended_within)
        found = await violations(
            self.workshop,
            self.effects,
            self.accepted,
            waiting=self.waiting,
            absences=self.absences,
            crash_cap=self.crash_cap,
        )
        found += [f"a worker ended with {code}" for code in {worker.poll() for worker in self.workers} - ENDS]
        log = self.log.read_text()
        if "exception was never retrieved" in log:
            found.append("a worker's log tells of an exception that nobody looked at")
        assert not found, "\n".join([*found, log[-3000:]])

    def close(self) -> None:
        for worker in self.alive():
            worker.send_signal(signal.SIGCONT)
            worker.send_signal(signal.SIGTERM)
        self._running.close()


@contextlib.asynccontextmanager
async def on_trial(settings: Settings, folder: Path) -> AsyncGenerator[Trial]:
    """A trial over a migrated database. Nothing is pooled: a broken connection is the test's to make, not to meet."""
    engine = create_async_engine(settings.database_url or "", poolclass=NullPool, connect_args={"timeout": 5})
    async with open_workshop(engine, settings) as workshop:
        trial = Trial(workshop, folder)
        actions.register(workshop.action, trial.effects)
        try:
            yield trial
        finally:
            trial.close()
    await engine.dispose()


async def patiently(ask: Callable[[], Awaitable[T]], *, within: float = 20) -> T:
    """`eventually`, with pauses: asking opens a connection, and the workers want the processor too."""

    async def pause_and_ask() -> T:
        await asyncio.sleep(0.03)
        return await ask()

    return await eventually(pause_and_ask, within=within)


async def ask_until(ask: Callable[[], Awaitable[Any]], *, within: float = 20) -> Any:
    """Ask a database that may be down until it answers with something true."""

    async def answered() -> Any:
        try:
            return await ask()
        except Exception:
            return None

    return await patiently(answered, within=within)
