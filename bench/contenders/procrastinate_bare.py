"""Drain no-op jobs: Procrastinate's own worker and connector. usage: procrastinate_bare.py URL JOBS CONCURRENCY"""

from __future__ import annotations

import asyncio
import sys
import time

import procrastinate
from sqlalchemy import make_url


async def main(url: str, jobs: int, concurrency: int) -> None:
    given = make_url(url)
    conninfo = f"host={given.query['host']} user={given.username} dbname={given.database}"
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=conninfo))

    # A namespace: no trigger of ours makes a run of it.
    @app.task(name="bench:nothing")
    async def nothing(n: int) -> None: ...

    async with app.open_async():
        await nothing.batch_defer_async(*({"n": n} for n in range(jobs)))
        began = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=concurrency, install_signal_handlers=False)
        print(time.perf_counter() - began)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
