"""What is done to bare Procrastinate, in the order of the catalogue."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
from procrastinate.exceptions import ConnectorException
from tests.faults.bare_app import STALLED_SECONDS, make_app
from tests.faults.bare_stage import LISTENING, Bare
from tests.faults.cluster import mounted_tmpfs, unmounted

CANCEL_BLOCKED = (
    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
HEARTBEAT_AGE = "SELECT extract(epoch FROM now() - max(last_heartbeat))::float8 FROM procrastinate_workers"
UNFINISHED = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"


async def restart(bare: Bare, down: float) -> None:
    await asyncio.to_thread(bare.cluster.stop, "immediate")
    await asyncio.sleep(down)
    await asyncio.to_thread(bare.cluster.start)
    await asyncio.sleep(2)


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


async def f5_drain_beyond_lease(bare: Bare) -> None:
    worker = await bare.worker(GRACE="10")
    await bare.defer("nap", seconds=6)
    await bare.begun()
    worker.terminate()
    await asyncio.sleep(STALLED_SECONDS + 1)
    bare.notes.append(f"listed as stalled while it drains: {await bare.stalled()}")
    await bare.worker()
    bare.notes.append(f"its job then belongs to worker {await bare.value('SELECT worker_id FROM procrastinate_jobs')}")
    await asyncio.to_thread(worker.wait)


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


async def f7_blocked_loop(bare: Bare) -> None:
    await bare.worker()
    await bare.defer("block", seconds=20)
    await bare.begun()
    await asyncio.sleep(8)
    bare.notes.append(f"after 8 s listed as stalled: {await bare.stalled()}")


async def f9_pill_with_the_recipe(bare: Bare) -> None:
    await bare.worker(RECIPE="1")
    await bare.defer("pill")
    killed = 0
    until = time.monotonic() + 25
    while time.monotonic() < until:
        if all(worker.poll() is not None for worker in bare.workers):
            killed += 1
            bare.start(RECIPE="1")
        await asyncio.sleep(0.1)
    bare.notes.append(f"workers killed in 25 s: {killed}")


async def f10_overrun(bare: Bare) -> None:
    await bare.worker()
    await bare.defer("nap", seconds=600)
    await bare.begun()
    await asyncio.sleep(8)


async def f11_unknown_task(bare: Bare) -> None:
    await bare.worker()
    await bare.defer("from_the_future")
    await asyncio.sleep(2)


async def f12_cancelled_at_40_moments(bare: Bare) -> None:
    await bare.worker()
    async with make_app(bare.dsn).open_async() as app:

        async def defer_and_cancel(after: float) -> None:
            job = await app.configure_task("retried_nap").defer_async(seconds=0.2)
            await asyncio.sleep(after)
            await app.job_manager.cancel_job_by_id_async(job, abort=True)

        await asyncio.gather(*(defer_and_cancel(number * 0.02) for number in range(40)))
    await asyncio.sleep(3)
    wrong = await bare.value("SELECT count(*) FROM procrastinate_jobs WHERE status = 'failed' AND abort_requested")
    bare.notes.append(f"failed although what was asked for was to cancel: {wrong}")


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


async def f19_notify_off(bare: Bare) -> None:
    await bare.execute("ALTER TABLE procrastinate_jobs DISABLE TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1")
    await bare.worker()
    began = time.monotonic()
    await bare.defer("nap", 5, lock="one", seconds=0.1)
    await bare.until("SELECT count(*) = 5 FROM procrastinate_jobs WHERE status = 'succeeded'", bool)
    bare.notes.append(f"5 jobs of 0.1 s under one lock took {time.monotonic() - began:.1f} s")


async def f20_notify_queue_full(bare: Bare) -> None:
    await bare.worker()
    async with bare.cluster.full_notify_queue(bare.database):
        bare.notes.append(f"defer {await defers(bare)}")
        await asyncio.sleep(3)
    await asyncio.sleep(5)
    bare.notes.append(f"5 s after the session that pinned it has ended, defer {await defers(bare)}")
    # Asking moves the queue on.
    await bare.value("SELECT pg_notification_queue_usage()")
    bare.notes.append(f"after somebody asked for pg_notification_queue_usage(), defer {await defers(bare)}")


async def defers(bare: Bare) -> str:
    try:
        await bare.defer("nap", seconds=0)
    except ConnectorException as error:
        return f"raises {type(error.__cause__).__name__}"
    return "works"


async def f22_answer_to_a_claim_lost(bare: Bare) -> None:
    await bare.proxied()
    lost = bare.proxy.lose_answer(lambda: bare.any("doing"))
    await bare.defer("nap", seconds=0)
    await asyncio.wait_for(lost.wait(), 10)
    await asyncio.sleep(6)


async def f22_answer_to_a_finish_lost(bare: Bare) -> None:
    await bare.proxied()
    lost = bare.proxy.lose_answer(lambda: bare.any("succeeded"))
    await bare.defer("nap", seconds=0)
    await asyncio.wait_for(lost.wait(), 10)
    await asyncio.sleep(3)


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


async def f25_pool_taken(bare: Bare) -> None:
    await bare.worker(CONCURRENCY="30")
    await bare.defer("hog", 25, seconds=1.5)
    await bare.defer("nap", 5, seconds=0)
    oldest = 0.0
    until = time.monotonic() + 12
    while time.monotonic() < until:
        oldest = max(oldest, await bare.value(HEARTBEAT_AGE) or 0)
        await asyncio.sleep(0.1)
    bare.notes.append(f"heartbeat was up to {oldest:.1f} s old (interval 0.5 s)")


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


async def f28_disk_full(bare: Bare) -> None:
    folder = Path(tempfile.mkdtemp(prefix="runledger-disk-"))
    if not mounted_tmpfs(folder, "24m"):
        raise PermissionError("a small file system cannot be mounted here")
    bare.cluster.postgres._give(folder)
    await bare.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
    for table in ("procrastinate_jobs", "procrastinate_events"):
        await bare.execute(f"ALTER TABLE {table} SET TABLESPACE small")
    await bare.worker()
    await bare.defer("nap", 100, seconds=1)
    async with bare.cluster.superuser(bare.database) as connection:
        await connection.execute("CREATE TABLE filler (x text) TABLESPACE small")
        await connection.execute("ALTER TABLE filler ALTER x SET STORAGE EXTERNAL")
        for size in (1_000_000, 100_000, 7_000):
            with contextlib.suppress(asyncpg.DiskFullError):
                while True:
                    await connection.execute("INSERT INTO filler VALUES (repeat('x', $1))", size)
        bare.notes.append(f"left when the disk is full: {await bare.value(UNFINISHED)}")
        await asyncio.sleep(3)
        await connection.execute("DROP TABLE filler")
        await connection.execute("CHECKPOINT")
    await asyncio.sleep(15)
    bare.notes.append(f"left 15 s after there is space again: {await bare.value(UNFINISHED)}")
    for table in ("procrastinate_jobs", "procrastinate_events"):
        await bare.execute(f"ALTER TABLE {table} SET TABLESPACE pg_default")
    await bare.execute("DROP TABLESPACE small")
    unmounted(folder)


async def f29_repeatable_read(bare: Bare) -> None:
    await bare.cluster.execute("ALTER ROLE runledger SET default_transaction_isolation = 'repeatable read'")
    try:
        for _ in range(2):
            await bare.worker()
        await bare.defer("nap", 60, seconds=0.05)
        await asyncio.sleep(6)
    finally:
        await bare.cluster.execute("ALTER ROLE runledger RESET default_transaction_isolation")


async def f29_fetch_cancelled(bare: Bare) -> None:
    await bare.worker()
    async with bare.cluster.superuser(bare.database) as connection, connection.transaction():
        await connection.execute("LOCK TABLE procrastinate_jobs")
        await bare.until(CANCEL_BLOCKED, lambda answer: bool(answer))
    await asyncio.sleep(2)


async def f34_one_lock(bare: Bare) -> None:
    for _ in range(4):
        await bare.worker()
    async with make_app(bare.dsn).open_async() as app:
        for number in range(150):
            await app.configure_task("nap", lock="one", priority=number * 7 % 19).defer_async(seconds=0)
    await asyncio.sleep(10)


async def f36_every_second(bare: Bare) -> None:
    zombie, *_ = [await bare.worker(TICKING="1") for _ in range(3)]
    await bare.until("SELECT count(*) FROM procrastinate_jobs", lambda ticks: ticks > 2)
    zombie.send_signal(signal.SIGSTOP)
    await asyncio.sleep(2)
    await restart(bare, 1.5)
    await asyncio.sleep(2)
    zombie.send_signal(signal.SIGCONT)
    await asyncio.sleep(3)
    ticks = [
        row for row in await bare.column("SELECT (args->>'timestamp')::int FROM procrastinate_jobs ORDER BY 1") if row
    ]
    missing = ticks[-1] - ticks[0] + 1 - len(set(ticks))
    bare.notes.append(
        f"{len(ticks)} ticks, {len(ticks) - len(set(ticks))} of them twice, {missing} missing up to the last"
    )


async def f37_clock_an_hour_ahead(bare: Bare) -> None:
    await retried_by_a_wrong_clock(bare, 3600)


async def f37_clock_an_hour_behind(bare: Bare) -> None:
    await retried_by_a_wrong_clock(bare, -3600)


async def retried_by_a_wrong_clock(bare: Bare, skew: float) -> None:
    await bare.worker(SKEW=str(skew))
    await bare.defer("fail_once")
    await bare.until("SELECT attempts = 1 FROM procrastinate_jobs", bool)
    wait = await bare.value("SELECT extract(epoch FROM scheduled_at - now())::int FROM procrastinate_jobs")
    bare.notes.append(f"a retry after 2 s is due in {wait} s")
    await asyncio.sleep(4)


async def f38_row_deleted(bare: Bare) -> None:
    await bare.worker()
    await bare.execute("DELETE FROM procrastinate_workers")
    await asyncio.sleep(1)


async def f39_one_cannot_be_rescued(bare: Bare) -> None:
    worker = await bare.worker()
    await bare.defer("nap", 4, seconds=2)
    await bare.begun(4)
    await bare.execute(
        "ALTER TABLE procrastinate_jobs ADD CONSTRAINT stuck CHECK (NOT (id = 1 AND status = 'todo')) NOT VALID"
    )
    worker.kill()
    await bare.worker(RECIPE="1")
    await asyncio.sleep(8)
    naps = await bare.column("SELECT status::text FROM procrastinate_jobs WHERE task_name = 'nap' ORDER BY id")
    bare.notes.append(f"8 s later the four are {', '.join(naps)}")
    await bare.execute("DELETE FROM procrastinate_jobs WHERE task_name = 'retry_stalled_jobs'")


FAULTS: tuple[Callable[[Bare], Awaitable[None]], ...] = (
    f1_sigkill,
    f3_sigterm_beyond_grace,
    f5_drain_beyond_lease,
    f6_zombie,
    f7_blocked_loop,
    f9_pill_with_the_recipe,
    f10_overrun,
    f11_unknown_task,
    f12_cancelled_at_40_moments,
    f13_restart_idle,
    f14_down_when_a_job_ends,
    f15_finish_cancelled,
    f16_heartbeat_cancelled,
    f17_listener_killed,
    f18_garbage,
    f19_notify_off,
    f20_notify_queue_full,
    f22_answer_to_a_claim_lost,
    f22_answer_to_a_finish_lost,
    f23_frozen,
    f23_frozen_sigterm,
    f24_cut,
    f25_pool_taken,
    f26_max_connections,
    f27_read_only,
    f28_disk_full,
    f29_repeatable_read,
    f29_fetch_cancelled,
    f34_one_lock,
    f36_every_second,
    f37_clock_an_hour_ahead,
    f37_clock_an_hour_behind,
    f38_row_deleted,
    f39_one_cannot_be_rescued,
)
