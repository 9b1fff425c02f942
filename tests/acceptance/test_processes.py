"""The product's promises, on real processes and real sockets."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.conftest import alembic
from tests.support.eventually import eventually
from tests.support.processes import api_process, environment, running, worker_process

from app.config import ROOT, Settings
from app.outbound.postgres.database import make_engine

# Big enough that a worker can be killed in the middle of counting it.
LONG_TEXT = "the quick brown fox jumps over the lazy dog " * 22_000


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "processes.log"


@pytest.fixture
async def api(settings: Settings, log: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with api_process(settings, log) as (url, _), httpx2.AsyncClient(base_url=url, timeout=30) as client:
        yield client


async def test_a_run_submitted_over_http_is_followed_live_to_its_end(
    api: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    with worker_process(settings, log):
        run = await submit(api, "count_words", text="to be or not to be")
        events = [event async for event in follow(api, run)]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["state"] for event in events if event["event"] == "state"] == ["queued", "running", "succeeded"]
    assert [event["name"] for event in events if event["event"] == "step"] == [f"part-{n}" for n in range(1, 7)]
    assert (await get(api, run))["result"]["total"] == 6


async def test_the_roadmap_documents_curl_scrapes_a_page(
    api: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    page = f"{api.base_url}/docs"
    with worker_process(settings, log):
        answer = await api.post(
            "/actions/run",
            json={"action": "scrape_page", "params": {"url": page}},
            headers={"X-ROADMAP-AI-SECRET": "dev-secret"},
        )
        run_id = answer.json()["run_id"]

        async def ended() -> dict[str, Any] | None:
            run = (await api.get(f"/actions/run/{run_id}")).json()
            return run if run["status"] in ("success", "failed", "cancelled") else None

        run = await eventually(ended)
    assert (run["status"], run["result"]["title"]) == ("success", "Runledger - Swagger UI")


async def test_a_worker_killed_in_the_middle_loses_no_finished_step(
    api: httpx2.AsyncClient, settings: Settings, engine: AsyncEngine, log: Path
) -> None:
    with worker_process(settings, log) as first:
        run = await submit(api, "count_words", text=LONG_TEXT)
        await eventually(lambda: steps(engine))
        first.send_signal(signal.SIGKILL)
        first.wait()
    finished = await steps(engine)
    assert 1 <= finished < 10, "the worker was to be killed in the middle"
    with worker_process(settings, log):
        async for _ in follow(api, run):
            pass
    run = await get(api, run)
    assert (run["state"], run["attempt"]) == ("succeeded", 2)
    assert run["result"]["total"] == 9 * 22_000
    async with engine.connect() as connection:
        performed = (
            await connection.execute(text("SELECT attempt, count(*) FROM run_steps GROUP BY 1 ORDER BY 1"))
        ).all()
    assert performed == [(1, finished), (2, 10 - finished)]


async def test_sigterm_ends_a_worker_with_0_and_gives_its_runs_back(
    api: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    with worker_process(settings, log, GRACE_SECONDS="0.2") as worker:
        run = await submit(api, "sleep", seconds=600)
        await state(api, run, "running")
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 20) == 0
    back = await get(api, run)
    assert (back["state"], back["attempt"]) == ("queued", 0)


async def test_a_running_run_is_cancelled_over_http(api: httpx2.AsyncClient, settings: Settings, log: Path) -> None:
    with worker_process(settings, log):
        run = await submit(api, "sleep", seconds=600)
        await state(api, run, "running")
        # 200 when its worker was quicker than the answer.
        assert (await api.post(f"/runs/{run['id']}/cancel")).status_code in (200, 202)
        await state(api, run, "cancelled")


async def test_sigterm_ends_an_api_with_open_streams_cleanly(settings: Settings, log: Path) -> None:
    async with api_process(settings, log) as (url, process), httpx2.AsyncClient(base_url=url) as client:
        run = await submit(client, "sleep", seconds=600)
        seen = 0
        # No broken chunk: the stream ends as a stream ends.
        async for _ in follow(client, run):
            seen += 1
            process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) in (0, -signal.SIGTERM)
    assert seen == 1
    assert "Traceback" not in log.read_text()


async def test_a_stream_that_broke_off_is_resumed_at_another_api(
    api: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    run = await submit(api, "count_words", text="one two three")
    first = await anext(follow(api, run))
    with worker_process(settings, log):
        # Longer than an API without a bell lies still.
        async with api_process(settings, log) as (url, _), httpx2.AsyncClient(base_url=url, timeout=60) as other:
            rest = [event async for event in follow(other, run, after=first["seq"])]
    assert [event["seq"] for event in [first, *rest]] == list(range(1, len(rest) + 2))


async def test_two_hundred_watchers_see_every_event_once_and_in_order(
    api: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    run = await submit(api, "count_words", text="a b c d e f g h i j")

    async def watch() -> list[int]:
        return [event["seq"] async for event in follow(api, run)]

    async with httpx2.AsyncClient(base_url=api.base_url, timeout=60, limits=httpx2.Limits(max_connections=None)) as api:
        watching = [asyncio.create_task(watch()) for _ in range(200)]
        with worker_process(settings, log):
            seen = await asyncio.gather(*watching)
    assert len(set(map(tuple, seen))) == 1
    assert seen[0] == list(range(1, len(seen[0]) + 1))


async def test_the_procrastinate_command_defers_lists_cancels_and_retries_and_the_runs_follow(
    api: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    assert "Found procrastinate_jobs table: OK" in procrastinate(settings, "healthchecks")
    procrastinate(settings, "defer", "echo", '{"message": "from the shell"}')
    (run,) = (await api.get("/runs")).json()["items"]
    assert (run["state"], run["params"]) == ("queued", {"message": "from the shell"})

    said = procrastinate(settings, "shell", commands=["list_jobs", "cancel 1"])
    assert said.index("#1 echo on default - [todo]") < said.index("#1 echo on default - [cancelled]")
    assert (await get(api, run))["state"] == "cancelled"

    procrastinate(settings, "defer", "scrape_page", '{"url": "http://127.0.0.1:1/"}')
    (failing, _) = (await api.get("/runs")).json()["items"]
    procrastinate(settings, "defer", "count_words", '{"text": 7}')
    procrastinate(settings, "worker", "--one-shot", "--concurrency", "2")
    assert (await get(api, failing))["state"] == "retrying"
    (wrong, *_) = (await api.get("/runs")).json()["items"]
    assert (wrong["state"], wrong["error"]["errors"][0]["pointer"]) == ("failed", "/params/text")

    assert "#3 count_words on default - [todo]" in procrastinate(settings, "shell", "retry", "3")
    assert (await get(api, wrong))["state"] == "retrying"


async def test_the_procrastinate_command_shows_what_a_worker_holds_and_disturbs_it_not(
    api: httpx2.AsyncClient, settings: Settings, log: Path
) -> None:
    with worker_process(settings, log):
        procrastinate(settings, "defer", "--lock", "one", "sleep", '{"seconds": 600}')
        (holding,) = (await api.get("/runs")).json()["items"]
        await state(api, holding, "running")
        procrastinate(settings, "defer", "--lock", "one", "echo", '{"message": "next"}')
        (waiting, _) = (await api.get("/runs")).json()["items"]
        said = procrastinate(settings, "shell", commands=["list_locks", "list_tasks lock=one", "cancel 1"])
        assert "one: 2 jobs (todo: 1, doing: 1," in said
        assert "sleep: 1 jobs (todo: 0, doing: 1," in said
        # Its shell cancels only what waits.
        assert "#1 sleep on default - [doing]" in said
        assert (await get(api, holding))["state"] == "running"
        assert (await api.post(f"/runs/{holding['id']}/cancel")).status_code in (200, 202)
        await state(api, waiting, "succeeded")
    assert "#1 sleep on default - [aborted]" in procrastinate(settings, "shell", "list_jobs", "lock=one")


async def test_a_worker_waits_for_the_schema_and_says_so(settings: Settings, empty_database: URL, log: Path) -> None:
    empty = settings.model_copy(update={"database_url": empty_database.render_as_string(hide_password=False)})
    with running("-m", "app.worker_main", env=environment(empty), log=log) as worker:
        await eventually(lambda: said(log, "Waiting: the database lacks app_"))
        await asyncio.to_thread(alembic, "upgrade", "heads", url=empty_database)
        engine = make_engine(empty)
        await eventually(lambda: beats(engine))
        await engine.dispose()
        assert worker.poll() is None


async def test_a_worker_waits_for_the_database_and_says_so(settings: Settings, log: Path) -> None:
    gone = settings.model_copy(update={"database_url": "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"})
    with running("-m", "app.worker_main", env=environment(gone), log=log) as worker:
        await eventually(lambda: said(log, "Waiting for the database"))
        assert worker.poll() is None


def test_wrong_settings_are_said_in_one_line_and_the_exit_code(settings: Settings) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "app.worker_main"],
        cwd=ROOT / "api",
        env=environment(settings, WORKER_CONCURRENCY="many"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 78
    assert result.stderr.startswith("Invalid settings. WORKER_CONCURRENCY: ")
    assert "Traceback" not in result.stderr


async def test_the_arguments_of_runs_never_reach_a_log(settings: Settings, log: Path) -> None:
    async with api_process(settings, log, LOG_LEVEL="DEBUG") as (url, _), httpx2.AsyncClient(base_url=url) as client:
        run = await submit(client, "echo", message="sk_canary_0123456789")
        with worker_process(settings, log, LOG_LEVEL="DEBUG"):
            await state(client, run, "succeeded")
        procrastinate(settings, "healthchecks")
    assert "sk_canary" not in log.read_text()


async def submit(api: httpx2.AsyncClient, action: str, **params: Any) -> dict[str, Any]:
    answer = await api.post("/runs", json={"action": action, "params": params})
    assert answer.status_code == 202, answer.text
    return answer.json()


async def get(api: httpx2.AsyncClient, run: dict[str, Any]) -> dict[str, Any]:
    return (await api.get(f"/runs/{run['id']}")).json()


async def state(api: httpx2.AsyncClient, run: dict[str, Any], wanted: str) -> None:
    async def reached() -> bool:
        return (await get(api, run))["state"] == wanted

    await eventually(reached)


async def follow(api: httpx2.AsyncClient, run: dict[str, Any], after: int = 0) -> AsyncIterator[dict[str, Any]]:
    """The events of a run, until its stream ends; the opening `snapshot` and the closing `end` are left out."""
    headers = {"Last-Event-ID": str(after)} if after else {}
    async with api.stream("GET", f"/runs/{run['id']}/events", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        event: dict[str, Any] = {}
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            match name:
                case "event":
                    event["event"] = value
                case "id":
                    event["seq"] = int(value)
                case "data":
                    event |= json.loads(value)
                case "" if event:
                    if event["event"] not in ("snapshot", "end"):
                        yield event
                    event = {}


async def steps(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT count(*) FROM run_steps")) or 0


async def beats(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT count(*) FROM procrastinate_workers")) or 0


async def said(log: Path, words: str) -> bool:
    return words in log.read_text()


def procrastinate(settings: Settings, *arguments: str, commands: Sequence[str] = ()) -> str:
    """Run Procrastinate's own command over our app; its shell takes commands as they are typed."""
    result = subprocess.run(
        [sys.executable, "-m", "procrastinate", "--app=app.tasks.procrastinate_app", *arguments],
        cwd=ROOT / "api",
        env=environment(settings),
        input="\n".join([*commands, "EOF"]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
