"""Procrastinate with its own worker, connector and schema.

usage: bare.py URL drain JOBS CONCURRENCY | batch JOBS SIZE | latency COUNT
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time

import procrastinate
from sqlalchemy import make_url


async def main(url: str, what: str, *arguments: str) -> None:
    given = make_url(url)
    conninfo = f"host={given.query['host']} user={given.username} dbname={given.database}"
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=conninfo))
    latencies: list[int] = []
    picked_up = asyncio.Event()

    @app.task(name="nothing")
    async def nothing(n: int) -> None: ...

    @app.task(name="pick_up")
    async def pick_up(sent: int) -> None:
        latencies.append(time.time_ns() - sent)
        picked_up.set()

    async def drain(jobs: int, concurrency: int) -> dict[str, float]:
        await nothing.batch_defer_async(*({"n": n} for n in range(jobs)))
        began = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=concurrency, install_signal_handlers=False)
        return {"rate": jobs / (time.perf_counter() - began)}

    async def batch(jobs: int, size: int) -> dict[str, float]:
        requests = [{"n": n} for n in range(size)]
        await nothing.batch_defer_async(*requests)
        began = time.perf_counter()
        for _ in range(0, jobs, size):
            await nothing.batch_defer_async(*requests)
        return {"rate": jobs / (time.perf_counter() - began)}

    async def latency(count: int) -> dict[str, float]:
        worker = asyncio.create_task(app.run_worker_async(concurrency=10, install_signal_handlers=False))
        for number in range(count + 20):
            await asyncio.sleep(0.02)
            if number == 20:
                latencies.clear()
            await pick_up.defer_async(sent=time.time_ns())
            await asyncio.wait_for(picked_up.wait(), 60)
            picked_up.clear()
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        cut = statistics.quantiles(latencies, n=100)
        return {"p50": cut[49] / 1e6, "p99": cut[98] / 1e6}

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        print(json.dumps(await {"drain": drain, "batch": batch, "latency": latency}[what](*map(int, arguments))))


asyncio.run(main(*sys.argv[1:]))
