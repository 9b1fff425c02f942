"""Faults at random over thousands of mixed runs; the invariants are the only verdict: `make chaos`.

`SECONDS` (300), `RUNS` (5000) and `SEED` (random, printed) can be set.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.faults.cluster import Cluster
from tests.faults.conftest import fault_settings
from tests.faults.proxy import Proxy
from tests.faults.trial import Trial, on_trial

from app.runs import service
from app.runs.schemas import RunCreate

WORKERS = 3
MEAN_GAP_SECONDS = 5.0
SUBMITTERS = 8
CANCELLED_OF = 20
"""One of so many runs is cancelled."""


async def chaos(seconds: float, runs: int, seed: int) -> list[str]:
    """Submit, hurt, wait for calm; the invariants that do not hold."""
    cluster = Cluster.create()
    try:
        name = f"chaos_{uuid.uuid4().hex[:8]}"
        await cluster.execute(f'CREATE DATABASE {name} TEMPLATE "{cluster.template}"')
        url = cluster.url.set(database=name)
        folder = Path(tempfile.mkdtemp(prefix="runledger-chaos-"))
        async with Proxy.before(url) as proxy, on_trial(fault_settings(url), folder) as trial:  # noqa: SIM117
            async with trial.supervised(WORKERS, database_url=proxy.url, TICKING="1") as codes:
                faults = Faults(trial, cluster, proxy, random.Random(seed))
                hurting = asyncio.create_task(faults.go_on(seconds))
                await submit_all(trial, runs, seconds, random.Random(seed + 1))
                await hurting
                print(f"{len(trial.accepted)} runs accepted, {faults.done}, exit codes {sorted(codes)}")  # noqa: T201
                return await calm(trial)
    finally:
        cluster.remove()


async def calm(trial: Trial) -> list[str]:
    """Wait until work flows, and judge."""
    try:
        await trial.verdict(ended_within=120)
    except AssertionError as error:
        return str(error).splitlines()
    except TimeoutError:
        return ["no fresh run was performed within 10 s of the last fault"]
    return []


class Faults:
    """What is done to the system, one after the other."""

    def __init__(self, trial: Trial, cluster: Cluster, proxy: Proxy, dice: random.Random) -> None:
        self._trial, self._cluster, self._proxy, self._dice = trial, cluster, proxy, dice
        self.done: dict[str, int] = {}

    async def go_on(self, seconds: float) -> None:
        """A fault every five seconds on average."""
        faults = [
            self.kill, self.drain, self.pause, self.restart, self.freeze, self.cut,
            self.terminate_sessions, self.garbage,
        ]  # fmt: skip
        until = time.monotonic() + seconds
        while (gap := self._dice.expovariate(1 / MEAN_GAP_SECONDS)) + time.monotonic() < until:
            await asyncio.sleep(gap)
            fault = self._dice.choice(faults)
            self.done[fault.__name__] = self.done.get(fault.__name__, 0) + 1
            with contextlib.suppress(OSError):
                await fault()

    async def kill(self) -> None:
        self._some_worker().kill()

    async def drain(self) -> None:
        self._some_worker().terminate()

    async def pause(self) -> None:
        async with self._trial.paused(self._some_worker()):
            await asyncio.sleep(self._dice.uniform(0.5, 5))

    async def restart(self) -> None:
        await asyncio.to_thread(self._cluster.stop, "immediate")
        await asyncio.sleep(self._dice.uniform(0, 3))
        await asyncio.to_thread(self._cluster.start)

    async def freeze(self) -> None:
        self._proxy.freeze()
        await asyncio.sleep(self._dice.uniform(0.5, 6))
        self._proxy.thaw()

    async def cut(self) -> None:
        self._proxy.cut()

    async def terminate_sessions(self) -> None:
        await self._cluster.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'runledger'"
        )

    async def garbage(self) -> None:
        await self._cluster.execute(
            "SELECT pg_notify('procrastinate_any_queue_v1', 'garbage')",
            database=str(self._trial.workshop.engine.url.database),
        )

    def _some_worker(self) -> Any:
        alive = self._trial.alive()
        if not alive:
            raise ProcessLookupError
        return self._dice.choice(alive)


async def submit_all(trial: Trial, runs: int, seconds: float, dice: random.Random) -> None:
    """Spread over nine tenths of the time. What was not answered was not accepted, and is not asked for again."""
    began = time.monotonic()

    async def submitter(first: int) -> None:
        for number in range(first, runs, SUBMITTERS):
            await asyncio.sleep(max(0.0, began + 0.9 * seconds * number / runs - time.monotonic()))
            with contextlib.suppress(Exception):
                run = await trial.request(mixed(dice))
                if number % CANCELLED_OF == 0:
                    await asyncio.sleep(dice.uniform(0, 0.5))
                    await service.cancel(trial.workshop.engine, trial.workshop.queue.job_manager, run.id)

    await asyncio.gather(*(submitter(first) for first in range(SUBMITTERS)))


def mixed(dice: random.Random) -> RunCreate:
    """A run of some kind."""
    lock = f"lock-{dice.randint(1, 5)}"
    soon = datetime.now(UTC) + timedelta(seconds=dice.uniform(0.5, 5))
    return dice.choice(
        [
            RunCreate(action="instant"),
            RunCreate(action="instant"),
            RunCreate(action="instant", schedule_at=soon),
            RunCreate(action="nap", params={"seconds": round(dice.uniform(0, 0.5), 3)}),
            RunCreate(action="nap", params={"seconds": 0.02, "lock": lock}, lock=lock, priority=dice.randint(-9, 9)),
            RunCreate(action="flaky", params={"failures": dice.randint(1, 2)}),
            RunCreate(action="stepped", params={"steps": 3, "seconds": 0.05}),
        ]
    )


def main() -> int:
    seconds, runs = float(os.environ.get("SECONDS", "300")), int(os.environ.get("RUNS", "5000"))
    seed = int(os.environ.get("SEED") or random.randrange(1_000_000))
    print(f"Chaos for {seconds:g} s over {runs} runs: SEED={seed}", flush=True)  # noqa: T201
    violations = asyncio.run(chaos(seconds, runs, seed))
    print("\n".join(violations) if violations else "Every invariant holds.")  # noqa: T201
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
