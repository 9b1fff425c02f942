"""What a fault of bare Procrastinate is done on: one database, one proxy, its worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import asyncpg
from sqlalchemy import make_url
from tests.faults.bare_app import STALLED_SECONDS, make_app
from tests.faults.cluster import Cluster
from tests.faults.proxy import Proxy

from app.config import ROOT

RECOVERED_WITHIN = 10.0
LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN%'"


class Bare:
    """One database, one proxy, and the worker processes of one fault."""

    def __init__(self, cluster: Cluster, database: str, proxy: Proxy) -> None:
        self.cluster, self.database, self.proxy = cluster, database, proxy
        self.workers: list[subprocess.Popen[bytes]] = []
        self.notes: list[str] = []

    @property
    def dsn(self) -> str:
        return self.cluster.url.set(drivername="postgresql", database=self.database).render_as_string()

    def start(self, dsn: str | None = None, **more: str) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.bare_app", dsn or self.dsn],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'api'}", **more},
            cwd=ROOT / "api",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.workers.append(worker)
        return worker

    async def worker(self, dsn: str | None = None, **more: str) -> subprocess.Popen[bytes]:
        """Start a worker, and wait until it is at work."""
        last = await self.value("SELECT coalesce(max(id), 0) FROM procrastinate_workers")
        worker = self.start(dsn, **more)
        await self.until("SELECT coalesce(max(id), 0) FROM procrastinate_workers", lambda newest: newest > last)
        await asyncio.sleep(1)
        return worker

    @property
    def proxied_dsn(self) -> str:
        return make_url(self.proxy.url).set(drivername="postgresql").render_as_string()

    async def proxied(self) -> subprocess.Popen[bytes]:
        return await self.worker(self.proxied_dsn)

    async def defer(self, task: str, count: int = 1, lock: str | None = None, **arguments: Any) -> None:
        async with make_app(self.dsn).open_async() as app:
            for _ in range(count):
                await app.configure_task(task, lock=lock, allow_unknown=True).defer_async(**arguments)

    async def execute(self, statement: str) -> None:
        await self.cluster.execute(statement, database=self.database)

    async def value(self, query: str) -> Any:
        async with self.cluster.superuser(self.database) as connection:
            return await connection.fetchval(query)

    async def column(self, query: str) -> list[Any]:
        async with self.cluster.superuser(self.database) as connection:
            return [row[0] for row in await connection.fetch(query)]

    async def any(self, status: str) -> bool:
        return bool(await self.value(f"SELECT count(*) FROM procrastinate_jobs WHERE status = '{status}'"))

    async def stalled(self) -> int:
        """How many jobs Procrastinate would tell an operator are stalled."""
        async with make_app(self.dsn).open_async() as app:
            return len(list(await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_SECONDS)))

    async def until(self, query: str, wanted: Callable[[Any], bool], within: float = RECOVERED_WITHIN) -> bool:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                if wanted(await self.value(query)):
                    return True
            await asyncio.sleep(0.05)
        return False

    async def begun(self, count: int = 1) -> None:
        await self.until("SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'", lambda n: n >= count)

    async def observed(self) -> str:
        """What is left, and whether a fresh job is performed."""
        await self.defer("nap", seconds=0)
        fresh = await self.until("SELECT status = 'succeeded' FROM procrastinate_jobs ORDER BY id DESC LIMIT 1", bool)
        async with self.cluster.superuser(self.database) as connection:
            rows = await connection.fetch("SELECT status::text FROM procrastinate_jobs")
            listening = await connection.fetchval(LISTENING)
        jobs = ", ".join(f"{count} {status}" for status, count in sorted(Counter(row[0] for row in rows).items()))
        codes = ["alive" if worker.poll() is None else f"exit {worker.returncode}" for worker in self.workers]
        return "; ".join(
            [*self.notes, f"workers: {', '.join(codes)}", f"LISTEN sessions: {listening}", f"jobs: {jobs}",
             f"fresh job within 10 s: {'yes' if fresh else 'NO'}"]
        )  # fmt: skip

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
