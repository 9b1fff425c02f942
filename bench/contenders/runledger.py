"""Ours. usage: runledger.py URL drain JOBS CONCURRENCY runs|jobs|first | latency COUNT | idle | memory FIRST LAST"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import statistics
import sys
import time

import uvloop
from ours import engine_of, make_app
from sqlalchemy import text

from app.runs import submission
from app.runs.actions import Actions
from app.runs.intake import Intake
from app.runs.schemas import RunCreate

PAGE = os.sysconf("SC_PAGE_SIZE")


class Bench:
    """An app of ours with two no-op tasks: an action, whose runs have the full ledger, and a plain job without."""

    def __init__(self, url: str) -> None:
        self.engine = engine_of(url)
        self.app = make_app(self.engine)
        self.action = Actions(self.app)
        self.latencies: list[int] = []
        self.picked_up = asyncio.Event()
        self.left, self.enough = 0, asyncio.Event()

        @self.action()
        async def nothing(n: int) -> None:  # noqa: ARG001
            self.left -= 1
            if self.left == 0:
                self.enough.set()

        @self.action()
        async def pick_up(sent: int) -> None:
            self.latencies.append(time.time_ns() - sent)
            self.picked_up.set()

        @self.app.task(name="bench:nothing")
        async def plain(n: int) -> None: ...

        self.tasks = {"runs": nothing, "jobs": plain}

    async def drain(self, jobs: int, concurrency: int, kind: str) -> dict[str, float]:
        for begin in range(0, jobs, 5_000):
            numbers = range(begin, min(begin + 5_000, jobs))
            await self.tasks["jobs" if kind == "jobs" else "runs"].batch_defer_async(*({"n": n} for n in numbers))
        before = await self._ended()
        if kind == "first":
            return {"rate": await self._rate_of_first(jobs, concurrency)}
        began = time.perf_counter()
        await self.app.run_worker_async(wait=False, concurrency=concurrency, install_signal_handlers=False)
        seconds = time.perf_counter() - began
        assert await self._ended() == before + jobs, "not all jobs have ended"
        return {"rate": jobs / seconds}

    async def _rate_of_first(self, jobs: int, concurrency: int) -> float:
        """The rate at which the first `jobs` of a longer queue are performed."""
        self.left, self.enough = jobs, asyncio.Event()
        worker = asyncio.create_task(self.app.run_worker_async(concurrency=concurrency, install_signal_handlers=False))
        began = time.perf_counter()
        await self.enough.wait()
        seconds = time.perf_counter() - began
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        return jobs / seconds

    async def latency(self, count: int) -> dict[str, float]:
        intake = Intake(self.engine, timeout=10)
        worker = asyncio.create_task(self.app.run_worker_async(concurrency=10, install_signal_handlers=False))
        for number in range(count + 20):
            await asyncio.sleep(0.02)
            if number == 20:
                self.latencies.clear()
            await submission.submit(
                intake, self.action["pick_up"], RunCreate(action="pick_up", params={"sent": time.time_ns()})
            )
            await asyncio.wait_for(self.picked_up.wait(), 60)
            self.picked_up.clear()
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        return percentiles(self.latencies)

    async def idle(self) -> dict[str, float]:
        await self.app.run_worker_async(concurrency=10)
        return {}

    async def memory(self, first: int, last: int) -> dict[str, float]:
        await self.drain(first, 100, "runs")
        after_first = rss()
        for _ in range(first, last, first):
            await self.drain(first, 100, "runs")
        return {"after_first": after_first, "after_last": rss()}

    async def _ended(self) -> int:
        async with self.engine.connect() as connection:
            return await connection.scalar(
                text("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded' AND task_name LIKE '%nothing'")
            )


def percentiles(nanoseconds: list[int]) -> dict[str, float]:
    cut = statistics.quantiles(nanoseconds, n=100)
    return {"p50": cut[49] / 1e6, "p99": cut[98] / 1e6}


def rss() -> float:
    """MB of this process in memory."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE / 1e6


async def main(url: str, what: str, *arguments: str) -> None:
    bench = Bench(url)
    given = [int(argument) if argument.isdecimal() else argument for argument in arguments]
    async with bench.app.open_async():
        gc.collect()
        gc.freeze()  # as worker_main does
        print(json.dumps(await getattr(bench, what)(*given)))


uvloop.run(main(*sys.argv[1:]))
