"""Pages of runs cost a page, whatever the ledger holds: what a page reads is counted, for each filter."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tests.support.plans import root_of, scanned
from tests.support.workshop import Workshop

from app.config import Settings
from app.outbound.postgres.database import make_engine
from app.runs import pages
from app.runs.pages import WINDOW, Page, Way, count, estimate, get_page
from app.runs.state import RunState

RUNS = 100_000
RARE = 200
"""The oldest, which the planner may read over on its way to those of a common action."""
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
# Ten runs a second. The rarest things are at the far end, where a look from the near end finds them last.
FILL = """
    INSERT INTO procrastinate_jobs (task_name, queue_name, status, args)
    SELECT 'common', 'default', CASE WHEN n > :runs - 3000 OR n <= 30 THEN 'todo' ELSE 'succeeded' END
           ::procrastinate_job_status, jsonb_build_object('n', n)
      FROM generate_series(1, :runs) AS n;
    INSERT INTO action_runs (id, job_id, action, params, state, queue, priority, tags, owner, created_at,
                             finished_at, trouble)
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
           CASE WHEN status <> 'todo' THEN now() END,
           CASE WHEN status <> 'todo' AND (n % 1000 = 7 OR n BETWEEN 40 AND 60) THEN 'failed' END
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


# What can be looked at as a whole, and what is more than that.
SMALL: list[dict[str, Any]] = [
    {"owner": "rare"},
    {"action": "rare", "q": "7"},
    {"tag": "rare", "state": RunState.SUCCEEDED},
    {"state": RunState.QUEUED},
    {"state": RunState.FAILED},
    {"since": BEGAN + timedelta(seconds=77.3), "until": BEGAN + timedelta(seconds=99.9)},
]
LARGE: list[dict[str, Any]] = [
    {},
    {"owner": "common"},
    {"tag": "common", "owner": "common"},
    {"action": "common", "state": RunState.SUCCEEDED},
    {"since": BEGAN + timedelta(hours=1), "until": BEGAN + timedelta(hours=2)},
    {"since": BEGAN + timedelta(hours=2)},
]


async def read(
    connection: AsyncConnection, asked: dict[str, Any], *, way: Way = pages.DOWN, at: int | None = None
) -> float:
    return await read_by(connection, pages.page_of(asked, way), asked, at=at)


async def read_by(connection: AsyncConnection, sql: str, asked: dict[str, Any], *, at: int | None = None) -> float:
    values = pages._values(asked) | {"at": at, "limit": 51}
    statement = pages._bound(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values)
    plan = root_of((await connection.execute(statement)).scalar_one())
    return sum(scanned(plan, table) for table in ("action_runs", "procrastinate_jobs", "run_tags"))


@pytest.mark.timeout(300)
async def test_a_page_reads_a_page_and_a_search_reads_a_window(filled: AsyncConnection) -> None:
    for asked in FULL_PAGES:
        page = await get_page(filled, limit=50, before=None, **asked)
        assert len(page.rows) == 50, asked
        most = 10 * 51 + 2 * pages.SLACK + (2 * 3_000 if "state" in asked else 0)
        assert await read(filled, asked) <= most, asked
        assert await read(filled, asked, way=pages.UP, at=page.last) <= most, asked
    for asked in SHORT_PAGES:
        page = await get_page(filled, limit=50, before=None, **asked)
        assert len(page.rows) < 50, asked
        assert await read(filled, asked) <= 2 * WINDOW + 2, asked
        assert await read(filled, asked, way=pages.UP, at=1) <= 2 * WINDOW + 2 + RARE, asked


@pytest.mark.timeout(300)
async def test_a_total_is_exact_or_about_right_and_costs_a_search(filled: AsyncConnection) -> None:
    for asked in SMALL:
        assert await estimate(filled, **asked) == await count(filled, **asked), asked
    for asked in LARGE:
        about = await count(filled, **asked)
        assert 0.6 * about < await estimate(filled, **asked) < 1.4 * about, asked
    assert await estimate(filled, q="no such") == 0
    for asked in [*FULL_PAGES, *SHORT_PAGES]:
        # The runs of an owner of every other one are found by reading over the others.
        assert await read_by(filled, pages.look_of(asked), asked) <= 3 * WINDOW + RARE, asked


async def walked(connection: AsyncConnection, **asked: Any) -> list[Page]:
    """All pages, from the newest to the oldest."""
    walked = [await get_page(connection, limit=50, **asked)]
    while (last := walked[-1].last) is not None:
        walked.append(await get_page(connection, limit=50, before=last, **asked))
    return walked


async def walked_back(connection: AsyncConnection, page: Page, **asked: Any) -> list[Page]:
    """All pages before that one, from there to the newest."""
    walked = [page]
    while (first := walked[-1].first) is not None:
        walked.append(await get_page(connection, limit=50, onwards=first, **asked))
    return walked[1:]


def jobs_of(page: Page) -> list[int]:
    return [row.job_id for row in page.rows]


async def test_a_page_ends_before_its_runs_are_too_heavy_and_the_next_goes_on(
    engine: AsyncEngine, workshop: Workshop
) -> None:
    @workshop.action()
    async def read(text: str) -> None: ...

    # What cannot be compressed, so that it weighs what it is long.
    for _ in range(7):
        await workshop.submit("read", text=secrets.token_hex(pages.HEAVIEST_PAGE_BYTES // 4))
    async with engine.connect() as connection:
        there = await walked(connection)
        back = await walked_back(connection, there[-1])
    jobs = [jobs_of(page) for page in there]
    assert len(jobs) > 1
    assert all(1 < len(page) < 7 for page in jobs[:-1])
    newest_first = [job for page in jobs for job in page]
    assert newest_first == sorted(set(newest_first), reverse=True)
    assert len(newest_first) == 7
    assert sorted(job for page in [*back, there[-1]] for job in jobs_of(page)) == newest_first[::-1]


async def test_a_run_that_is_too_heavy_for_any_page_has_one_of_its_own(engine: AsyncEngine, workshop: Workshop) -> None:
    @workshop.action()
    async def read(text: str) -> None: ...

    for _ in range(3):
        await workshop.submit("read", text=secrets.token_hex(pages.HEAVIEST_PAGE_BYTES))
    async with engine.connect() as connection:
        assert [len(page.rows) for page in await walked(connection)] == [1, 1, 1]


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
        there = await walked(filled, **asked)
        assert [job for page in there for job in jobs_of(page)] == list(wanted), asked
        back = await walked_back(filled, there[-1], **asked)
        assert [jobs_of(page) for page in back] == [jobs_of(page) for page in there[-2::-1]], asked
        assert [page.last for page in back] == [page.last for page in there[-2::-1]], asked
    page = await get_page(filled, limit=50, before=None, q="no such")
    assert (page.rows, page.last) == ([], RUNS - WINDOW + 1)
    assert page.searched_until == BEGAN + timedelta(seconds=(RUNS - WINDOW + 1) / 10), "it says how far it has looked"
