"""Pages of 50 out of 1,000,000 runs, by each filter; the rarest runs are the oldest, so that a look finds them last.

usage: pages.py URL
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.runs import service
from app.runs.state import RunState

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
FILL = """
    SET session_replication_role = replica;
    INSERT INTO procrastinate_jobs (task_name, queue_name, status, args)
    SELECT 'common', 'default', CASE WHEN n > 997000 OR n <= 30 THEN 'todo' ELSE 'succeeded' END
           ::procrastinate_job_status, jsonb_build_object('n', n, 'text', CASE WHEN n <= 200 THEN 'needle' END)
      FROM generate_series(1, 1000000) AS n;
    INSERT INTO action_runs (id, job_id, action, params, state, queue, priority, tags, owner, created_at, finished_at,
                             trouble)
    SELECT 'run_' || to_char((timestamptz '2026-01-01T00:00:00Z' + n * interval '0.1 second') AT TIME ZONE 'UTC',
                             'YYYYMMDD"T"HH24MISS"Z"') || '_' || lpad(to_hex((n * 2654435761) & 4294967295), 8, '0'),
           id, CASE WHEN n <= 200 THEN 'rare' ELSE 'common' END, args,
           CASE WHEN status = 'todo' THEN 'queued' WHEN n % 1000 = 7 THEN 'failed' ELSE 'succeeded' END,
           CASE WHEN n <= 200 THEN 'rare' ELSE 'default' END, 0,
           CASE WHEN n <= 200 THEN ARRAY['rare', 'common'] WHEN n % 2 = 0 THEN ARRAY['common'] ELSE '{}' END,
           CASE WHEN n <= 200 THEN 'rare' WHEN n % 2 = 0 THEN 'common' END,
           timestamptz '2026-01-01T00:00:00Z' + n * interval '0.1 second', CASE WHEN status <> 'todo' THEN now() END,
           CASE WHEN status <> 'todo' AND n % 1000 = 7 THEN 'failed' END
      FROM (SELECT *, (args->>'n')::bigint AS n FROM procrastinate_jobs) AS job ORDER BY id;
    INSERT INTO run_tags SELECT unnest(tags), job_id FROM action_runs;
    ANALYZE
"""
NOTHING: dict[str, Any] = dict.fromkeys(("owner", "action", "state", "queue", "tag", "since", "until", "q"))
FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "state": {"state": RunState.FAILED},
    "action": {"action": "rare"},
    "queue": {"queue": "rare"},
    "tag": {"tag": "rare"},
    "owner": {"owner": "rare"},
    "time": {"since": BEGAN + timedelta(hours=1), "until": BEGAN + timedelta(hours=2)},
    "text": {"q": "needle"},
    "all of them": {
        "owner": "rare", "action": "rare", "queue": "rare", "tag": "rare", "state": RunState.SUCCEEDED, "q": "needle",
        "since": BEGAN, "until": BEGAN + timedelta(hours=2),
    },
}  # fmt: skip


async def main(url: str) -> None:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        for statement in FILL.split(";"):
            await connection.execute(text(statement))
        await connection.commit()
    print(json.dumps({name: await _milliseconds(engine, chosen) for name, chosen in FILTERS.items()}))
    await engine.dispose()


async def _milliseconds(engine: AsyncEngine, chosen: dict[str, Any]) -> float:
    taken: list[float] = []
    for _ in range(25):
        began = time.perf_counter()
        await service.list_page(engine, limit=50, cursor=None, **(NOTHING | chosen))
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


asyncio.run(main(sys.argv[1]))
