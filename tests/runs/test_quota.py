"""Quotas: one owner's backlog is bounded, others are not touched, and nobody asks the database for each run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from procrastinate.exceptions import ConnectorException
from tests.support.workshop import Workshop

from app.errors import QuotaExceeded
from app.runs import submission
from app.runs.intake import Intake
from app.runs.quota import LOOK_AGAIN_SECONDS, Quota
from app.runs.schemas import BatchItem, RunCreate
from app.runs.submission import Origin


class Counted:
    """A database that knows how much waits, and a clock."""

    def __init__(self, **waiting: int) -> None:
        self.waiting = waiting
        self.asked = 0
        self.now = 1000.0
        self.takes = 0.0
        self.fails = False

    async def count(self) -> dict[str, int]:
        self.asked += 1
        self.now += self.takes
        if self.fails:
            raise ConnectorException
        return dict(self.waiting)

    def clock(self) -> float:
        return self.now

    def quota(self, limit: int) -> Quota:
        return Quota(self.count, limit, self.clock)


async def turns() -> None:
    """Let the tasks that wait go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_between_two_counts_what_is_accepted_is_added() -> None:
    database = Counted(ada=2)
    quota = database.quota(4)
    for _ in range(2):
        await quota.admit("ada")
    with pytest.raises(QuotaExceeded) as refused:
        await quota.admit("ada")
    assert (refused.value.quota, refused.value.limit) == ("queued_runs", 4)
    await quota.admit("bob")
    assert database.asked == 1


async def test_the_next_count_lets_on_who_was_refused() -> None:
    database = Counted(ada=1)
    quota = database.quota(1)
    with pytest.raises(QuotaExceeded):
        await quota.admit("ada")
    database.waiting = {}
    database.now += LOOK_AGAIN_SECONDS
    with pytest.raises(QuotaExceeded):
        await quota.admit("ada")
    await turns()
    await quota.admit("ada")
    assert database.asked == 2


async def test_a_count_that_takes_long_is_made_less_often() -> None:
    database = Counted()
    database.takes = 1.0
    quota = database.quota(10)
    await quota.admit("ada")
    for _ in range(19):
        database.now += 1
        await quota.admit("ada") if database.asked > 1 else None
        await turns()
    assert database.asked == 1
    database.now += 1
    await quota.admit("ada")
    await turns()
    assert database.asked == 2


async def test_a_database_that_is_away_is_said_once_and_then_by_the_statement_that_stores() -> None:
    database = Counted()
    database.fails = True
    quota = database.quota(1)
    with pytest.raises(ConnectorException):
        await quota.admit("ada")
    database.fails = False
    database.now += LOOK_AGAIN_SECONDS
    await quota.admit("ada")
    database.fails = True
    database.now += LOOK_AGAIN_SECONDS
    with pytest.raises(QuotaExceeded):
        await quota.admit("ada")
    await turns()
    await quota.close()


@pytest.fixture
async def intake(workshop: Workshop) -> AsyncIterator[Intake]:
    @workshop.action()
    async def echo(message: str) -> str:
        return message

    intake = Intake(workshop.engine, timeout=5, max_queued=3)
    yield intake
    await intake.aclose()


ADA = Origin("ada")
ECHO: dict[str, Any] = {"action": "echo", "params": {"message": "x"}}


async def test_what_waits_for_a_worker_or_for_its_time_counts_and_what_ended_does_not(
    intake: Intake, workshop: Workshop
) -> None:
    async def submit(origin: Origin, **options: Any) -> None:
        await submission.submit(intake, workshop.action["echo"], RunCreate.model_validate(ECHO | options), origin)

    for _ in range(2):
        await submit(ADA)
    await workshop.drain()
    await submit(ADA, schedule_at="2999-01-01T00:00:00Z")
    fresh = Intake(workshop.engine, timeout=5, max_queued=3)
    intake, first = fresh, intake
    for _ in range(2):
        await submit(ADA)
    with pytest.raises(QuotaExceeded):
        await submit(ADA)
    await submit(Origin("bob"))
    await submit(Origin())
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE owner = 'ada'") == 5
    await fresh.aclose()
    await first.aclose()


async def test_of_a_batch_as_many_are_accepted_as_fit(intake: Intake, workshop: Workshop) -> None:
    outcomes = await submission.submit_all(intake, workshop.action, [ECHO] * 5, ADA, check=lambda _: None)
    assert [type(outcome) for outcome in outcomes] == [*[BatchItem] * 3, QuotaExceeded, QuotaExceeded]
    assert await workshop.value("SELECT count(*) FROM action_runs") == 3
