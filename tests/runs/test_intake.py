"""The intake: what is submitted at the same moment is stored together, and everybody gets his own answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from procrastinate.exceptions import ConnectorException
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.errors import AlreadyQueued, TooBusy, Unavailable
from app.runs import intake, queries
from app.runs.schemas import RunCreate


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each statement was to store."""
    sizes: list[int] = []
    insert = queries.insert_runs

    async def note(database: queries.Database, runs: list[queries.NewRun]) -> Any:
        sizes.append(len(runs))
        return await insert(database, runs)

    monkeypatch.setattr(queries, "insert_runs", note)
    return sizes


@pytest.fixture(autouse=True)
def nothing(workshop: Workshop) -> None:
    @workshop.action()
    async def nothing(n: int) -> int:
        return n

    @workshop.action(queueing_lock="one waits")
    async def alone() -> None: ...


async def test_fifty_submits_at_once_take_few_statements(workshop: Workshop, statements: list[int]) -> None:
    runs = await asyncio.gather(*(workshop.submit("nothing", n=n) for n in range(50)))
    assert [run.params["n"] for run in runs] == list(range(50)), "everybody gets his own"
    assert len({run.id for run in runs}) == 50
    assert sum(statements) == 50
    assert len(statements) <= 3


async def test_what_is_answered_is_stored(workshop: Workshop) -> None:
    for run in await asyncio.gather(*(workshop.submit("nothing", n=n) for n in range(5))):
        assert await workshop.value("SELECT 1 FROM action_runs WHERE id = :id", id=run.id)


async def test_a_taken_queueing_lock_refuses_one_and_not_the_others(workshop: Workshop) -> None:
    await workshop.submit("alone")
    outcomes = await asyncio.gather(
        *(workshop.submit("nothing", n=n) for n in range(5)), workshop.submit("alone"), return_exceptions=True
    )
    assert isinstance(outcomes[5], AlreadyQueued)
    assert not any(isinstance(outcome, BaseException) for outcome in outcomes[:5])
    assert await workshop.value("SELECT count(*) FROM action_runs") == 6


async def test_of_two_for_one_queueing_lock_one_is_stored(workshop: Workshop) -> None:
    outcomes = await asyncio.gather(workshop.submit("alone"), workshop.submit("alone"), return_exceptions=True)
    assert [isinstance(outcome, AlreadyQueued) for outcome in outcomes].count(True) == 1
    assert await workshop.value("SELECT count(*) FROM action_runs") == 1


async def test_a_submit_whose_caller_went_away_harms_nobody(workshop: Workshop) -> None:
    leaving = asyncio.create_task(workshop.submit("nothing", n=1))
    staying = [asyncio.create_task(workshop.submit("nothing", n=n)) for n in range(2, 5)]
    await asyncio.sleep(0)
    leaving.cancel()
    assert [run.params["n"] for run in await asyncio.gather(*staying)] == [2, 3, 4]
    await eventually(lambda: workshop.value("SELECT count(*) = 4 FROM action_runs"))


async def test_who_comes_when_too_many_wait_is_told_to_come_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "ROOM", 3)
    outcomes = await asyncio.gather(*(workshop.submit("nothing", n=n) for n in range(5)), return_exceptions=True)
    assert [isinstance(outcome, TooBusy) for outcome in outcomes] == [False, False, False, True, True]
    assert await workshop.value("SELECT count(*) FROM action_runs") == 3


async def test_a_database_that_does_not_answer_is_said_to_everybody_who_waits(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = queries.insert_runs

    async def away(*_: Any, **__: Any) -> Any:
        raise ConnectorException

    monkeypatch.setattr(queries, "insert_runs", away)
    outcomes = await asyncio.gather(*(workshop.submit("nothing", n=n) for n in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectorException] * 3
    monkeypatch.setattr(queries, "insert_runs", insert)
    assert (await workshop.submit("nothing", n=4)).state == "queued"


async def test_a_mistake_of_ours_is_told_to_everybody_who_waits(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wrong(*_: Any, **__: Any) -> Any:
        raise TypeError("a mistake")

    monkeypatch.setattr(queries, "insert_runs", wrong)
    outcomes = await asyncio.gather(*(workshop.submit("nothing", n=n) for n in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [TypeError] * 3


async def test_a_run_is_tried_as_often_as_it_asks(workshop: Workshop) -> None:
    @workshop.action(retry=Retry(max_attempts=3, base=0))
    async def broken() -> None:
        raise Unavailable("it is down")

    runs = [
        await workshop.request(RunCreate.model_validate({"action": "broken", "max_attempts": asked}))
        for asked in (1, None, 7)
    ]
    await workshop.drain_all()
    ended = [await workshop.get(run) for run in runs]
    assert [(run.state, run.attempt, run.max_attempts) for run in ended] == [
        ("failed", 1, 1), ("failed", 3, 3), ("failed", 7, 7),
    ]  # fmt: skip


async def test_a_start_deadline_is_kept(workshop: Workshop) -> None:
    request = RunCreate.model_validate(
        {"action": "nothing", "params": {"n": 1}, "start_deadline": "2020-01-01T00:00:00Z"}
    )
    run = await workshop.request(request)
    await workshop.drain()
    run = await workshop.get(run)
    assert run.error is not None
    assert (run.state, run.error["type"]) == ("failed", "/problems/too-late")
