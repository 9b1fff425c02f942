"""What must hold for this process to do its work, and what will soon not hold if nobody looks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from app.engine.connector import SQLAlchemyAsyncConnector
from app.engine.queries import notify_queue_usage
from app.engine.rescue import NOTIFY_ALARM
from app.engine.schema import missing_revisions
from app.errors import DatabaseBehind, DatabaseUnavailable, NotNow
from app.routers.problems import DATABASE_ERRORS, FIND_THE_LISTENER, database_problem
from app.routers.services import Services
from app.runs.lookout import LOOK_AGAIN_SECONDS

PATIENCE_SECONDS = 1.0
_DEAF = (
    f"This process hears no NOTIFY: streams are up to {LOOK_AGAIN_SECONDS:g} s late. The log says why; LISTEN needs a "
    "connection of its own to the server, not one of a pooler."
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    problem: NotNow | None = None
    """Why it does not hold."""
    warning: str | None = None
    """What somebody should see to soon, though it holds."""


@dataclass(frozen=True)
class Examination:
    """What was looked at, from the ground up."""

    checks: list[Check]
    notify_queue_usage: float = 0.0
    """From 0 to 1."""

    @property
    def problem(self) -> NotNow | None:
        """The first thing to mend."""
        return next((check.problem for check in self.checks if check.problem), None)

    @property
    def warnings(self) -> list[str]:
        """What somebody should see to soon."""
        return [check.warning for check in self.checks if check.warning]


ALIVE = Examination([Check("ping")])
"""Of a process that answers."""


async def examine(services: Services) -> Examination:
    """Look at everything; without a database there is nothing else to look at."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            missing = await missing_revisions(services.engine)
            usage = await notify_queue_usage(SQLAlchemyAsyncConnector(services.engine, timeout=PATIENCE_SECONDS))
    except DATABASE_ERRORS as error:
        if (problem := database_problem(error)) is None:
            raise
        return Examination([Check("database", problem)])
    listens = Check("listen", warning=_DEAF if services.lookout.is_deaf else None)
    return Examination([Check("database"), _schema(missing), _notify_queue(usage), listens], usage)


def _schema(missing: set[str]) -> Check:
    behind = f"The database lacks {', '.join(sorted(missing))}. Run: runledger db upgrade"
    return Check("schema", DatabaseBehind(detail=behind) if missing else None)


def _notify_queue(usage: float) -> Check:
    if usage >= 1:
        full = DatabaseUnavailable(detail=f"PostgreSQL's NOTIFY queue is full. {FIND_THE_LISTENER}")
        return Check("notify-queue", full)
    filling = f"PostgreSQL's NOTIFY queue is {usage:.0%} full. {FIND_THE_LISTENER}"
    return Check("notify-queue", warning=filling if usage > NOTIFY_ALARM else None)
