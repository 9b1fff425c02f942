"""The limit: one statement claims a batch, another ends it, on the same tables with the same triggers; nothing else.

usage: sql_limit.py URL drain JOBS BATCH
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import asyncpg
import uvloop
from sqlalchemy import make_url

CLAIM = """
UPDATE procrastinate_jobs SET status = 'doing', worker_id = $1
 WHERE id = ANY (ARRAY(SELECT id FROM procrastinate_jobs WHERE status = 'todo'
                        ORDER BY priority DESC, id LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING id, args
"""
END = """
UPDATE procrastinate_jobs SET status = 'succeeded', attempts = attempts + 1, worker_id = NULL
 WHERE id = ANY ($1::bigint[])
"""


async def main(url: str, _: str, jobs: str, batch: str) -> None:
    given = make_url(url)
    to = {"host": given.query["host"], "user": given.username, "database": given.database}
    claims, ends = await asyncpg.connect(**to), await asyncpg.connect(**to)
    for begin in range(0, int(jobs), 5_000):
        size = min(5_000, int(jobs) - begin)
        await claims.execute(
            "INSERT INTO procrastinate_jobs (task_name, queue_name, args) "
            "SELECT 'nothing', 'default', jsonb_build_object('n', n) FROM generate_series(1, $1::int) AS n", size,
        )  # fmt: skip
    worker = await claims.fetchval("SELECT worker_id FROM procrastinate_register_worker_v1()")
    taken: asyncio.Queue[list[int]] = asyncio.Queue(2)

    async def claim() -> None:
        while rows := await claims.fetch(CLAIM, worker, int(batch)):
            await taken.put([row["id"] for row in rows])
        await taken.put([])

    async def end() -> None:
        while ids := await taken.get():
            await ends.execute(END, ids)

    began = time.perf_counter()
    await asyncio.gather(claim(), end())
    seconds = time.perf_counter() - began
    assert await claims.fetchval("SELECT count(*) FROM action_runs WHERE state = 'succeeded'") == int(jobs)
    print(json.dumps({"rate": int(jobs) / seconds}))


uvloop.run(main(*sys.argv[1:]))
