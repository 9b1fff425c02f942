"""Watching: each event once and in order, for many watchers with few looks, whatever is cut and whoever is slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.eventually import eventually
from tests.support.workshop import Workshop

from app.engine.retry import Retry
from app.runs import queries, watch
from app.runs.context import Run
from app.runs.events import follow
from app.runs.lookout import Lookout
from app.runs.schemas import RunRead


@pytest.fixture
async def stopping() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def lookout(engine: AsyncEngine, stopping: asyncio.Event) -> AsyncIterator[Lookout]:
    lookout = Lookout(engine, timeout=5, stopping=stopping)
    running = asyncio.create_task(lookout.run())
    await lookout.is_listening.wait()
    yield lookout
    stopping.set()
    await running


@pytest.fixture
def say(workshop: Workshop) -> dict[str, asyncio.Event]:
    """An action that says four lines, when it is let."""
    gates = {"begin": asyncio.Event()}

    @workshop.action(retry=Retry(max_attempts=1))
    async def say(run: Run) -> None:
        await gates["begin"].wait()
        for number in range(4):
            await run.log(f"line {number}")

    return gates


async def seen(stream: AsyncGenerator[list[watch.Told]]) -> list[Any]:
    """The ids of all events until the end, and the state at the end."""
    ids: list[Any] = []
    async with contextlib.aclosing(stream):
        async for told in stream:
            ids += [one.what.state if isinstance(one.what, RunRead) else one.seq for one in told]
    return ids


@pytest.mark.bell("fifty watchers are told by it")
async def test_fifty_watchers_of_a_run_share_each_look(
    workshop: Workshop,
    lookout: Lookout,
    stopping: asyncio.Event,
    say: dict[str, asyncio.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, list_new_events = 0, queries.list_new_events

    async def count(*args: Any, **kwargs: Any) -> Any:
        nonlocal looks
        looks += 1
        return await list_new_events(*args, **kwargs)

    monkeypatch.setattr(queries, "list_new_events", count)
    run = await workshop.submit("say")
    watchers = [
        asyncio.create_task(seen(follow(workshop.engine, lookout, run, after=0, stopping=stopping))) for _ in range(50)
    ]

    async def all_watch() -> bool:
        return run.id in lookout._watched and len(lookout._watched[run.id].watches) == 50

    await eventually(all_watch)
    say["begin"].set()
    async with workshop.working():
        assert await asyncio.gather(*watchers) == [[1, 2, 3, 4, 5, 6, 7, "succeeded"]] * 50
    assert looks < 50
    assert lookout._watched == {}


@pytest.mark.bell("what comes is told by it")
async def test_who_comes_in_the_middle_or_at_the_end_sees_what_the_others_saw(
    workshop: Workshop, lookout: Lookout, stopping: asyncio.Event, say: dict[str, asyncio.Event]
) -> None:
    run = await workshop.submit("say")
    first = asyncio.create_task(seen(follow(workshop.engine, lookout, run, after=0, stopping=stopping)))
    async with workshop.working():
        running = await workshop.reaches(run, "running")

        async def told() -> bool:
            return run.id in lookout._watched and lookout._watched[run.id].seen >= running.last_seq

        await eventually(told)
        # One with an old view of the run, one with a new one, and one who has seen some of it.
        later = [
            asyncio.create_task(seen(follow(workshop.engine, lookout, view, after=after, stopping=stopping)))
            for view, after in ((run, 0), (running, 0), (running, 1))
        ]
        say["begin"].set()
        everything = [1, 2, 3, 4, 5, 6, 7, "succeeded"]
        assert await asyncio.gather(first, *later) == [everything, everything, everything, everything[1:]]
        # The run has ended; who read it before that still gets its end.
        assert await seen(follow(workshop.engine, lookout, running, after=3, stopping=stopping)) == everything[3:]
        assert await seen(follow(workshop.engine, lookout, await workshop.get(run), after=7, stopping=stopping)) == [
            "succeeded"
        ]


async def test_a_watcher_who_does_not_take_what_he_is_told_is_let_go(
    workshop: Workshop, lookout: Lookout, say: dict[str, asyncio.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "ROOM", 2)
    say["begin"].set()
    run = await workshop.submit("say")
    with lookout.watch(run.id, run.last_seq) as slow:
        await workshop.drain()
        lookout._ring(run.id)

        async def over() -> bool:
            return slow._is_over

        await eventually(over)
        told = [one.seq async for some in slow for one in some]
    assert told == list(range(2, 2 + len(told))), "what he is told is whole up to where he is let go"
    assert len(told) > 2


async def test_all_streams_end_when_the_process_is_told_to_stop(
    workshop: Workshop, lookout: Lookout, stopping: asyncio.Event, say: dict[str, asyncio.Event]
) -> None:
    run = await workshop.submit("say")
    watchers = [
        asyncio.create_task(seen(follow(workshop.engine, lookout, run, after=0, stopping=stopping))) for _ in range(9)
    ]
    await eventually(lambda: asyncio.sleep(0, run.id in lookout._watched))
    stopping.set()
    assert await asyncio.gather(*watchers) == [[1]] * 9


@pytest.mark.bell("changes are told by it")
async def test_changes_are_told_to_whom_they_belong(workshop: Workshop, lookout: Lookout) -> None:
    @workshop.action()
    async def quick() -> None: ...

    with lookout.changes("ada") as hers, lookout.changes(None) as everybodys:
        run = await workshop.submit("quick")
        assert [one.id for one in await anext(everybodys)] == [run.id]
        await workshop.execute("UPDATE action_runs SET owner = 'ada'")
        await workshop.drain()
        states: list[str] = []
        while "succeeded" not in states:
            states += [one.state for one in await anext(hers)]
        assert states in (["running", "succeeded"], ["succeeded"])
