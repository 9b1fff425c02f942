"""Drain no-op runs with the full ledger: one worker process of ours. usage: runledger_runs.py URL JOBS CONCURRENCY"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

import uvloop
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.engine.app import App
from app.engine.connector import SQLAlchemyAsyncConnector
from app.runs.actions import Actions
from app.runs.problems import describe


@contextlib.asynccontextmanager
async def no_clients() -> AsyncGenerator[dict[str, Any]]:
    yield {"clients": None}


async def main(url: str, jobs: int, concurrency: int) -> None:
    engine = create_async_engine(url, pool_size=concurrency, max_overflow=concurrency)
    app = App(
        connector=SQLAlchemyAsyncConnector(engine),
        describe=describe,
        resources=no_clients,
        worker_options={},
        worker_defaults={},
    )

    @Actions(app)()
    async def nothing(n: int) -> None: ...

    async with app.open_async():
        await nothing.batch_defer_async(*({"n": n} for n in range(jobs)))
        began = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=concurrency, install_signal_handlers=False)
        print(time.perf_counter() - began)
        async with engine.connect() as connection:
            done = await connection.scalar(text("SELECT count(*) FROM action_runs WHERE state = 'succeeded'"))
        assert done == jobs, done


uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
