"""Pages of runs cost a page, whatever the ledger holds: what a page reads is counted, for each filter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.support.plans import root_of, scanned

from app.config import Settings
from app.outbound.postgres.database import make_engine
from app.runs import pages
from app.runs.pages import WINDOW, get_page
from app.runs.state import RunState

RUNS = 100_000
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
# Ten runs a second. The rarest things are at the far end, where a look from the near end finds them last.
FILL = """
    INSERT INTO procrastinate_jobs (task_name, queue_name, status, args)
    SELECT 'common', 'default', CASE WHEN n > :runs - 3000 OR n <= 30 THEN 'todo' ELSE 'succeeded' END
           ::procrastinate_job_status, jsonb_build_object('n', n)
      FROM generate_series(1, :runs) AS n;
    INSERT INTO action_runs (id, job_id, action, params, state, queue, priority, tags, owner, created_at,
                             finished_at)
    SELECT 'run_' || to_char((timestamptz '2026-01-01T00:00:00Z' + n * interval '0.1 second') AT TIME ZONE 'UTC',
                             'YYYYMMDD"T"HH24MISS"Z"') || '_'
               || lpad(to_hex((n * 2654435761) & 4294967295), 8, '0'),
           id, CASE WHEN n <= 200 THEN 'rare' ELSE 'common' END, args,
           CASE WHEN status = 'todo' THEN 'queued' WHEN n % 1000 = 7 OR n BETWEEN 40 AND 60 THEN 'failed'
                ELSE 'succeeded' END,
           CASE WHEN n <= 200 THEN 'rare' ELSE 'default' END, 0,
           CASE WHEN n <= 200 THEN ARRAY['rare', 'common'] WHEN n % 2 = 0 THEN ARRAY['common'] ELSE '{}' END,
           CASE WHEN n <= 200 THEN 'rare' WHEN n % 2 = 0 THEN 'common' END,
           timestamptz '2026-01-01T00:00:00Z' + n * interval '0.1 second',
           CASE WHEN status <> 'todo' THEN now() END
      FROM (SELECT *, (args->>'n')::bigint AS n FROM procrastinate_jobs) AS job ORDER BY id;
    INSERT INTO run_tags SELECT unnest(tags), job_id FROM action_runs
"""


@pytest.fixture
async def filled(settings: Settings) -> AsyncIterator[AsyncConnection]:
    engine = make_engine(settings.model_copy(update={"db_timeout_seconds": 120}))
    async with engine.connect() as connection:
        await connection.execute(text("SET session_replication_role = replica"))
        for statement in FILL.split(";"):
            await connection.execute(text(statement.replace(":runs", str(RUNS))))
        await connection.execute(text("ANALYZE"))
        yield connection
    await engine.dispose()


# What is asked for, and whether there is enough of it at the near end of what its index has.
FULL_PAGES: list[dict[str, Any]] = [
    {},
    {"action": "common"},
    {"action": "rare"},
    {"queue": "rare"},
    {"queue": "default"},
    {"tag": "common"},
    {"tag": "rare"},
    {"owner": "rare"},
    {"owner": "common"},
    {"state": RunState.QUEUED},
    {"state": RunState.FAILED},
    {"state": RunState.SUCCEEDED},
    {"owner": "rare", "action": "rare", "queue": "rare", "tag": "rare", "state": RunState.SUCCEEDED},
    {"owner": "common", "action": "common", "tag": "common", "state": RunState.SUCCEEDED},
    {"since": BEGAN + timedelta(hours=1), "until": BEGAN + timedelta(hours=2)},
    {"until": BEGAN + timedelta(minutes=5), "tag": "common", "owner": "common"},
    {"until": BEGAN + timedelta(minutes=5), "action": "common", "state": RunState.SUCCEEDED},
    {"q": "99"},
]
SHORT_PAGES: list[dict[str, Any]] = [
    {"state": RunState.SCHEDULED},
    {"state": RunState.RUNNING},
    {"state": RunState.CANCELLED},
    {"state": RunState.FAILED, "action": "rare"},
    {"owner": "rare", "q": "no such"},
    {"q": "no such"},
    {"q": "no such", "since": BEGAN, "until": BEGAN + timedelta(hours=2), "action": "common"},
    {"owner": "common", "action": "rare"},
    {"since": datetime(2027, 1, 1, tzinfo=UTC)},
    {"until": BEGAN},
]


async def read(connection: AsyncConnection, asked: dict[str, Any]) -> float:
    values = pages._values(asked) | {"before": None, "limit": 51}
    statement = pages._bound(f"EXPLAIN (ANALYZE, FORMAT JSON) {pages.page_of(asked)}", values)
    plan = root_of((await connection.execute(statement)).scalar_one())
    return sum(scanned(plan, table) for table in ("action_runs", "procrastinate_jobs", "run_tags"))


@pytest.mark.timeout(300)
async def test_a_page_reads_a_page_and_a_search_reads_a_window(filled: AsyncConnection) -> None:
    for asked in FULL_PAGES:
        page = await get_page(filled, limit=50, before=None, **asked)
        assert len(page.rows) == 50, asked
        assert await read(filled, asked) <= 10 * 51 + 2 * pages.SLACK + (2 * 3_000 if "state" in asked else 0), asked
    for asked in SHORT_PAGES:
        page = await get_page(filled, limit=50, before=None, **asked)
        assert len(page.rows) < 50, asked
        assert await read(filled, asked) <= 2 * WINDOW + 2, asked


async def walked(connection: AsyncConnection, **asked: Any) -> list[int]:
    """The jobs of all pages, in the order in which they come."""
    found, before = [], None
    while True:
        page = await get_page(connection, limit=50, before=before, **asked)
        found += [row.job_id for row in page.rows]
        if page.last is None:
            return found
        before = page.last


SEARCHES: list[tuple[dict[str, Any], str]] = [
    ({"state": RunState.FAILED, "action": "rare"}, "state = 'failed' AND action = 'rare'"),
    ({"state": RunState.QUEUED}, "state = 'queued'"),
    ({"tag": "rare", "state": RunState.SUCCEEDED}, "tags @> '{rare}' AND state = 'succeeded'"),
    ({"q": "1234"}, "params::text LIKE '%1234%'"),
    (
        {"since": BEGAN + timedelta(seconds=77.3), "until": BEGAN + timedelta(seconds=99.9)},
        "created_at >= '2026-01-01T00:01:17.3Z' AND created_at < '2026-01-01T00:01:39.9Z'",
    ),
]


@pytest.mark.timeout(300)
async def test_pages_together_have_what_was_asked_for_each_once(filled: AsyncConnection) -> None:
    for asked, condition in SEARCHES:
        wanted = await filled.scalars(text(f"SELECT job_id FROM action_runs WHERE {condition} ORDER BY job_id DESC"))
        assert await walked(filled, **asked) == list(wanted), asked
    page = await get_page(filled, limit=50, before=None, q="no such")
    assert (page.rows, page.last) == ([], RUNS - WINDOW + 1)
    assert page.searched_until == BEGAN + timedelta(seconds=(RUNS - WINDOW + 1) / 10), "it says how far it has looked"
