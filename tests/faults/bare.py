"""The same faults against Procrastinate as it comes: `python -m tests.faults.bare` prints what was observed.

Its own worker and `PsycopgConnector`, a schema that it made itself, the same short times.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import asyncpg
import procrastinate
from sqlalchemy import make_url
from tests.faults.cluster import Cluster
from tests.faults.proxy import Proxy

from app.config import ROOT

RECOVERED_WITHIN = 10.0
LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN%'"


def make_app(dsn: str) -> procrastinate.App:
    """An application as Procrastinate's own documentation makes one."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))

    @app.task(name="nap")
    async def nap(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @app.task(name="pill")
    async def pill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return app


async def work(dsn: str) -> None:
    """The worker process."""
    app = make_app(dsn)
    async with app.open_async():
        await app.run_worker_async(
            concurrency=10,
            fetch_job_polling_interval=0.5,
            abort_job_polling_interval=0.5,
            update_heartbeat_interval=0.5,
            stalled_worker_timeout=2,
            shutdown_graceful_timeout=2,
        )


class Bare:
    """One database, one proxy, and the worker processes of one fault."""

    def __init__(self, cluster: Cluster, database: str, proxy: Proxy) -> None:
        self.cluster, self.database, self.proxy = cluster, database, proxy
        self.workers: list[subprocess.Popen[bytes]] = []
        self.notes: list[str] = []

    @property
    def dsn(self) -> str:
        return self.cluster.url.set(drivername="postgresql", database=self.database).render_as_string()

    async def worker(self, dsn: str | None = None) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            [sys.executable, "-m", "tests.faults.bare", dsn or self.dsn],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'api'}"},
            cwd=ROOT / "api",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.workers.append(worker)
        before = len(self.workers)
        await self.until("SELECT count(*) FROM procrastinate_workers", lambda count: count >= before or count > 0)
        await asyncio.sleep(1)
        return worker

    async def proxied(self) -> subprocess.Popen[bytes]:
        return await self.worker(make_url(self.proxy.url).set(drivername="postgresql").render_as_string())

    async def defer(self, task: str, count: int = 1, lock: str | None = None, **arguments: Any) -> None:
        async with make_app(self.dsn).open_async() as app:
            for _ in range(count):
                await app.configure_task(task, lock=lock, allow_unknown=True).defer_async(**arguments)

    async def execute(self, statement: str) -> None:
        await self.cluster.execute(statement, database=self.database)

    async def value(self, query: str) -> Any:
        async with self.cluster.superuser(self.database) as connection:
            return await connection.fetchval(query)

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


async def f1_sigkill(bare: Bare) -> None:
    worker = await bare.worker()
    await bare.defer("nap", seconds=1)
    await bare.begun()
    worker.kill()
    await bare.worker()
    await asyncio.sleep(6)


async def f3_sigterm_beyond_grace(bare: Bare) -> None:
    worker = await bare.worker()
    await bare.defer("nap", seconds=6)
    await bare.begun()
    worker.terminate()
    await asyncio.to_thread(worker.wait)
    await bare.worker()


async def f6_zombie(bare: Bare) -> None:
    zombie = await bare.worker()
    await bare.defer("nap", seconds=2)
    await bare.begun()
    zombie.send_signal(signal.SIGSTOP)
    await bare.worker()
    await asyncio.sleep(6)
    bare.notes.append(f"after 3 leases the job is {await bare.value('SELECT status FROM procrastinate_jobs')}")
    zombie.send_signal(signal.SIGCONT)
    await asyncio.sleep(2)


async def f11_unknown_task(bare: Bare) -> None:
    await bare.worker()
    await bare.defer("from_the_future")
    await asyncio.sleep(2)


async def f13_restart_idle(bare: Bare) -> None:
    await bare.worker()
    await restart(bare, 1.5)


async def f14_down_when_a_job_ends(bare: Bare) -> None:
    await bare.worker()
    await bare.defer("nap", 4, seconds=1)
    await bare.begun(4)
    await restart(bare, 3.5)


async def f15_finish_cancelled(bare: Bare) -> None:
    await bare.worker()
    await bare.defer("nap", seconds=1)
    await bare.begun()
    async with bare.cluster.superuser(bare.database) as connection, connection.transaction():
        await connection.execute("SELECT FROM procrastinate_jobs FOR UPDATE")
        await bare.until(CANCEL_BLOCKED, lambda answer: bool(answer))
    await asyncio.sleep(3)


async def f16_heartbeat_cancelled(bare: Bare) -> None:
    await bare.worker()
    await bare.defer("nap", seconds=15)
    await bare.begun()
    async with bare.cluster.superuser(bare.database) as connection, connection.transaction():
        await connection.execute("LOCK TABLE procrastinate_workers")
        await bare.until(CANCEL_BLOCKED, lambda answer: bool(answer))
    await asyncio.sleep(4)
    age = await bare.value("SELECT extract(epoch FROM now() - max(last_heartbeat))::int FROM procrastinate_workers")
    bare.notes.append(f"heartbeat is {age} s old (interval 0.5 s)")


async def f17_listener_killed(bare: Bare) -> None:
    await bare.worker()
    for _ in range(5):
        await bare.execute(f"SELECT pg_terminate_backend(pid) FROM ({LISTENING.replace('count(*)', 'pid')}) AS l")
        await asyncio.sleep(0.2)


async def f18_garbage(bare: Bare) -> None:
    await bare.worker()
    await bare.execute("NOTIFY procrastinate_any_queue_v1, 'garbage'")
    await asyncio.sleep(2)


async def f23_frozen(bare: Bare) -> None:
    await bare.proxied()
    bare.proxy.freeze()
    await asyncio.sleep(6)
    bare.proxy.thaw()


async def f23_frozen_sigterm(bare: Bare) -> None:
    worker = await bare.proxied()
    await bare.defer("nap", seconds=60)
    await bare.begun()
    bare.proxy.freeze()
    worker.terminate()
    try:
        await asyncio.to_thread(worker.wait, 20)
    except subprocess.TimeoutExpired:
        bare.notes.append("20 s after SIGTERM it still runs")
    bare.proxy.thaw()


async def f24_cut(bare: Bare) -> None:
    await bare.proxied()
    await bare.defer("nap", 100, seconds=0.1)
    for _ in range(10):
        bare.proxy.cut()
        await asyncio.sleep(0.3)


async def f26_max_connections(bare: Bare) -> None:
    await bare.worker()
    taken: list[asyncpg.Connection] = []
    for _ in range(2):
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                taken.append(await asyncpg.connect(bare.dsn.replace(bare.database, "postgres")))
        await bare.cluster.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{bare.database}'"
        )
    await asyncio.sleep(3)
    for connection in taken:
        await connection.close()


async def f27_read_only(bare: Bare) -> None:
    await bare.worker()
    await bare.defer("nap", 5, seconds=0.5)
    await bare.cluster.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    await asyncio.sleep(4)
    await bare.cluster.execute("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
    await asyncio.sleep(1)


async def f34_one_lock(bare: Bare) -> None:
    for _ in range(4):
        await bare.worker()
    async with make_app(bare.dsn).open_async() as app:
        for number in range(150):
            await app.configure_task("nap", lock="one", priority=number * 7 % 19).defer_async(seconds=0)
    await asyncio.sleep(10)


async def f38_row_deleted(bare: Bare) -> None:
    await bare.worker()
    await bare.execute("DELETE FROM procrastinate_workers")
    await asyncio.sleep(1)


CANCEL_BLOCKED = (
    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def restart(bare: Bare, down: float) -> None:
    await asyncio.to_thread(bare.cluster.stop, "immediate")
    await asyncio.sleep(down)
    await asyncio.to_thread(bare.cluster.start)
    await asyncio.sleep(2)


FAULTS: tuple[Callable[[Bare], Awaitable[None]], ...] = (
    f1_sigkill, f3_sigterm_beyond_grace, f6_zombie, f11_unknown_task, f13_restart_idle, f14_down_when_a_job_ends,
    f15_finish_cancelled, f16_heartbeat_cancelled, f17_listener_killed, f18_garbage, f23_frozen, f23_frozen_sigterm,
    f24_cut, f26_max_connections, f27_read_only, f34_one_lock, f38_row_deleted,
)  # fmt: skip


@contextlib.asynccontextmanager
async def prepared(cluster: Cluster) -> AsyncGenerator[Bare]:
    database = f"bare_{uuid.uuid4().hex[:8]}"
    await cluster.execute(f"CREATE DATABASE {database} OWNER runledger")
    async with Proxy.before(cluster.url.set(database=database)) as proxy:
        bare = Bare(cluster, database, proxy)
        async with make_app(bare.dsn).open_async() as app:
            await app.schema_manager.apply_schema_async()
        try:
            yield bare
        finally:
            for worker in bare.workers:
                worker.kill()
                worker.wait()


async def observe_all() -> None:
    cluster = Cluster.create()
    try:
        for fault in FAULTS:
            async with prepared(cluster) as bare:
                try:
                    await fault(bare)
                    print(f"{fault.__name__}: {await bare.observed()}", flush=True)  # noqa: T201
                except Exception as error:
                    print(f"{fault.__name__}: not observed, {error!r}", flush=True)  # noqa: T201
    finally:
        cluster.remove()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]) if len(sys.argv) > 1 else observe_all())
