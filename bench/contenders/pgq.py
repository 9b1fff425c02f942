"""pgqueuer. usage: pgq.py URL drain JOBS BATCH | latency COUNT"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.types import QueueExecutionMode
from sqlalchemy import make_url


async def main(url: str, what: str, *arguments: str) -> None:
    given = make_url(url)
    to = {"host": given.query["host"], "user": given.username, "database": given.database}
    queue = PgQueuer.from_asyncpg_connection(await asyncpg.connect(**to))
    sender = PgQueuer.from_asyncpg_connection(await asyncpg.connect(**to)).qm.queries
    latencies: list[int] = []
    picked_up = asyncio.Event()
    done: list[int] = []

    @queue.entrypoint("nothing")
    async def nothing(_: Job) -> None:
        done.append(1)

    @queue.entrypoint("pick_up")
    async def pick_up(job: Job) -> None:
        latencies.append(time.time_ns() - int(job.payload or b""))
        picked_up.set()

    async def drain(jobs: int, batch: int) -> dict[str, float]:
        for _ in range(0, jobs, 5_000):
            size = min(jobs, 5_000)
            await sender.enqueue(["nothing"] * size, [b"1"] * size, [0] * size)
        began = time.perf_counter()
        await queue.run(batch_size=batch, mode=QueueExecutionMode.drain)
        seconds = time.perf_counter() - began
        assert len(done) == jobs, len(done)
        return {"rate": jobs / seconds}

    async def latency(count: int) -> dict[str, float]:
        worker = asyncio.create_task(queue.run())
        await asyncio.sleep(1)
        for number in range(count + 20):
            await asyncio.sleep(0.02)
            if number == 20:
                latencies.clear()
            await sender.enqueue("pick_up", str(time.time_ns()).encode())
            await asyncio.wait_for(picked_up.wait(), 60)
            picked_up.clear()
        queue.shutdown.set()
        await worker
        cut = statistics.quantiles(latencies, n=100)
        return {"p50": cut[49] / 1e6, "p99": cut[98] / 1e6}

    await queue.qm.queries.install()
    print(json.dumps(await {"drain": drain, "latency": latency}[what](*map(int, arguments))))


uvloop.run(main(*sys.argv[1:]))
