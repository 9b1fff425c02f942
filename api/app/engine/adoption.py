"""How limits become known: each worker registers those of its code before it claims anything."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from app.engine import queries
from app.engine.limits import Limit

logger = logging.getLogger(__name__)


async def register_limits(database: queries.Database, limits: Mapping[str, Limit], *, tasks: Sequence[str]) -> None:
    """Make known what the code limits, and give the jobs that were there before their keys.

    Whoever registers last decides. A task of `tasks` that has no limit has none from now on.

    Args:
        limits: by the task's name.
        tasks: the names of all tasks that the code knows.
    """
    for name in await queries.register_limits(database, limits=limits, tasks=tasks):
        logger.info("%s is limited: %s", name, limits.get(name))
        after: int | None = 0
        while after is not None:
            after = await queries.adopt_limited_jobs(database, task_name=name, after=after)
        await queries.end_adoption(database, task_name=name)
