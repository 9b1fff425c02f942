"""Actions that break things. The same catalogue in the process that submits and in those that perform."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from sqlalchemy import text
from tests.faults.effects import Effects

from app.engine.limits import Limit, Rate
from app.engine.retry import Retry
from app.runs.actions import Actions
from app.runs.context import Run

SOON = Retry(max_attempts=10, base=0.05, cap=0.3)


def register(action: Actions, effects: Effects) -> None:
    """Add the fault actions to a catalogue."""

    @action(retry=SOON)
    async def instant(run: Run, lock: str | None = None) -> int:
        with effects.of(run, lock):
            return run.attempt

    @action(retry=SOON)
    async def nap(run: Run, seconds: float, lock: str | None = None) -> int:
        with effects.of(run, lock):
            await asyncio.sleep(seconds)
        return run.attempt

    @action(retry=SOON)
    async def flaky(run: Run, failures: int = 1, seconds: float = 0) -> int:
        with effects.of(run):
            await asyncio.sleep(seconds)
            if run.attempt <= failures:
                raise ConnectionError("not yet")
        return run.attempt

    @action(retry=SOON)
    async def stepped(run: Run, steps: int, seconds: float = 0) -> int:
        async def one() -> int:
            await asyncio.sleep(seconds)
            return run.attempt

        with effects.of(run):
            return sum([1 for n in range(steps) if await run.step(f"step-{n}", one)])

    @action(retry=SOON)
    async def pill(run: Run) -> None:
        with effects.of(run):
            os.kill(os.getpid(), signal.SIGKILL)

    @action(retry=SOON)
    async def family(run: Run, size: int, seconds: float = 0, dies: bool = False) -> int:
        """Wait for children; the first attempt dies between spawning them and waiting, if it is to."""
        with effects.of(run):
            ids = [await run.spawn("nap", {"seconds": seconds}) for _ in range(size)]
            if dies and run.attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return len(await run.gather(ids))

    @action(retry=SOON)
    async def block(run: Run, seconds: float) -> None:
        with effects.of(run):
            time.sleep(seconds)  # noqa: ASYNC251 - that is the fault

    @action(retry=SOON)
    async def hog(run: Run, seconds: float) -> None:
        """Hold a connection of the pool that an action can reach."""
        with effects.of(run):
            async with run._engine.connect() as connection:
                await connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})

    @action(retry=SOON)
    async def tick(run: Run, timestamp: int) -> int:
        """What a schedule asks for."""
        with effects.of(run):
            return timestamp


def register_overruns(action: Actions, effects: Effects) -> None:
    """Add the actions that run longer than they may."""

    @action(retry=Retry(max_attempts=1), timeout=1)
    async def overrun(run: Run) -> None:
        with effects.of(run):
            await asyncio.sleep(600)

    @action(retry=Retry(max_attempts=1), timeout=1)
    async def stubborn(run: Run) -> None:
        """Ignore every cancellation."""
        with effects.of(run):
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(600)


def register_limited(action: Actions, effects: Effects) -> None:
    """Add the actions of which no more than three run at once, or start twenty in a second."""

    @action(retry=SOON, limit=Limit(concurrency=3))
    async def narrow(run: Run, seconds: float) -> None:
        with effects.of(run):
            await asyncio.sleep(seconds)

    @action(retry=SOON, limit=Limit(concurrency=1, by="customer"))
    async def sync(run: Run, customer: str) -> None:
        with effects.of(run, customer):
            await asyncio.sleep(0)

    @action(retry=SOON, limit=Limit(rate=Rate(20, seconds=1, burst=2)))
    async def paced(run: Run) -> None:
        with effects.of(run):
            await asyncio.sleep(0)
