"""What a worker does without jobs costs next to nothing, whatever the tables hold."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.plans import root_of, scanned
from tests.support.workshop import Workshop

from app.engine.connector import translate
from app.engine.link import Link
from app.engine.queries import claim, rescue, workers

ARGUMENTS = {"lease": 30.0, "limit": 100, "but": [], "error": "{}", "worker_id": 1}


@pytest.mark.parametrize(
    "statement",
    [
        claim._RELEASE_DUE_JOBS,
        workers._LIST_HELD_JOBS,
        rescue._LIST_ABANDONED_JOBS,
        rescue._EXPIRE_JOBS,
        workers._DELETE_LOST_WORKERS,
    ],
    ids=["release", "held", "abandoned", "expire", "lost"],
)
@pytest.mark.parametrize("statistics", ["none", "fresh"])
async def test_a_look_reads_nothing_of_what_waits_or_has_ended(
    statement: str, statistics: str, workshop: Workshop, engine: AsyncEngine
) -> None:
    await workshop.execute("""
        INSERT INTO procrastinate_jobs (task_name, queue_name, status)
        SELECT 'test:nothing', 'default', 'succeeded' FROM generate_series(1, 5000)
    """)
    await workshop.execute("""
        INSERT INTO procrastinate_jobs (task_name, queue_name, scheduled_at)
        SELECT 'nothing', 'default', now() + interval '1 day' FROM generate_series(1, 5000)
    """)
    if statistics == "fresh":
        await workshop.execute("ANALYZE procrastinate_jobs, action_runs")
    link = Link(engine, timeout=20)
    plan = await explained(link, statement)
    link.close()
    assert scanned(plan, "procrastinate_jobs") + scanned(plan, "action_runs") < 10


async def explained(link: Link, query: str) -> dict[str, Any]:
    statement = translate(query)
    await link.execute_query_all_async("SELECT 1")
    driver = link._driver
    assert driver is not None
    values = [ARGUMENTS[name] for name in statement.parameters]
    [[plan]] = await driver.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}", *values)
    return root_of(plan)
