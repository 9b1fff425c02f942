"""Watchers of our API: how late what happens reaches them, and what they cost the process.

usage: streams.py URL tell RUNS | watch PORT PID STREAMS SECONDS
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import sys
import time

import asyncpg
import uvloop
from ours import engine_of, make_app
from sqlalchemy import make_url

from app.runs.actions import Actions
from app.runs.context import Run

PAGE = os.sysconf("SC_PAGE_SIZE")
TOLD = re.compile(rb'"message":"(\d{19})"')
BETWEEN_SECONDS = 0.5
"""Each run tells its progress twice a second."""


async def tell(url: str, runs: int) -> dict[str, float]:
    """Perform runs that tell their progress, with the time, until this process is told to stop."""
    app = make_app(engine_of(url))
    action = Actions(app)

    @action()
    async def telling(run: Run) -> None:
        while True:
            await run.progress(1, 2, str(time.time_ns()))
            await asyncio.sleep(BETWEEN_SECONDS)

    async with app.open_async():
        await action["telling"].task.batch_defer_async(*({} for _ in range(runs)))
        await app.run_worker_async(concurrency=runs, shutdown_graceful_timeout=0)
    return {}


async def watch(url: str, port: int, pid: int, streams: int, seconds: int) -> dict[str, float]:
    """Open streams, measure for some seconds, and tell the API to stop while they are open."""
    run_ids = await running(url)
    before, latencies = rss(pid), list[float]()
    begin, ready = asyncio.Event(), asyncio.Semaphore(0)
    watchers = [
        asyncio.create_task(follow(port, run_ids[n % len(run_ids)], latencies, ready, begin)) for n in range(streams)
    ]
    for _ in watchers:
        await ready.acquire()
    await asyncio.sleep(2)
    begin.set()
    cpu = ticks(pid)
    await asyncio.sleep(seconds)
    begin.clear()
    used, after = (ticks(pid) - cpu) / seconds, rss(pid)
    os.kill(pid, signal.SIGTERM)
    told = time.monotonic()
    ends = await asyncio.gather(*watchers, return_exceptions=True)
    ended = time.monotonic() - told
    while not gone(pid):  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.01)
    cut = statistics.quantiles(latencies, n=100)
    return {
        "events/s": len(latencies) / seconds,
        "p50, ms": cut[49], "p95, ms": cut[94], "p99, ms": cut[98],
        "memory growth, MB": after - before,
        "CPU, ms/s": used * 1000,
        "streams that ended cleanly": sum(end is True for end in ends),
        "last stream ended after SIGTERM, s": ended,
        "process ended after SIGTERM, s": time.monotonic() - told,
    }  # fmt: skip


async def follow(
    port: int, run_id: str, latencies: list[float], ready: asyncio.Semaphore, begin: asyncio.Event
) -> bool:
    """Read a stream until it ends; whether it did so in order."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /runs/{run_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    last = b""
    is_ready = False
    while chunk := await reader.read(65_536):
        last = chunk
        if not is_ready and b"snapshot" in chunk:
            is_ready = True
            ready.release()
        if begin.is_set():
            now = time.time_ns()
            latencies += [(now - int(sent)) / 1e6 for sent in TOLD.findall(chunk)]
    writer.close()
    return last.endswith(b"0\r\n\r\n")


async def running(url: str) -> list[str]:
    given = make_url(url)
    connection = await asyncpg.connect(host=given.query["host"], user=given.username, database=given.database)
    while True:
        rows = await connection.fetch("SELECT id, state FROM action_runs")
        if rows and all(row["state"] == "running" for row in rows):
            await connection.close()
            return [row["id"] for row in rows]
        await asyncio.sleep(0.1)


def rss(pid: int) -> float:
    """MB of a process in memory."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * PAGE / 1e6


def ticks(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def gone(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"


async def main(url: str, what: str, *arguments: str) -> None:
    print(json.dumps(await {"tell": tell, "watch": watch}[what](url, *map(int, arguments))))


uvloop.run(main(*sys.argv[1:]))
