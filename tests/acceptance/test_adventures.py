"""Adventures, end to end: API, worker and the services that they call are processes of their own."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.callers import JWT_SECRET, bearer, token
from tests.support.eventually import eventually
from tests.support.gates import before_step, gate
from tests.support.processes import api_process, environment, free_port, running, worker_process

from app.config import Settings

ONCE_EACH = {"anthropic": 1, "deepl": 1, "gemini": 1}

# The result of a step cannot be stored the first time.
FAIL_ONCE = (
    "CREATE SEQUENCE failures",
    """
CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name = 'analyse' AND nextval('failures') = 1 THEN RAISE 'not now'; END IF;
    RETURN NEW;
END $$
""",
    "CREATE TRIGGER fail_once BEFORE INSERT ON run_steps FOR EACH ROW EXECUTE FUNCTION fail_once()",
)


@dataclass(frozen=True)
class Stage:
    """The API and the services that its workers call, without a worker."""

    api: httpx2.AsyncClient
    services: str
    settings: Settings
    engine: AsyncEngine
    log: Path
    files: Path

    def worker(self) -> contextlib.AbstractContextManager[Any]:
        return worker_process(
            self.settings, self.log, STUB_GENERATION="true", STUBS_URL=self.services, DATA_DIR=str(self.files)
        )

    async def begin(self, premise: str = "A lighthouse.") -> dict[str, Any]:
        wanted = {"language": "es", "native_language": "en", "premise": premise}
        answer = await self.api.post("/adventures", json=wanted)
        assert (answer.status_code, answer.json()["status"]) == (201, "awaiting_first_entry")
        return answer.json()

    async def complete(self, adventure: dict[str, Any], entries: int = 1) -> dict[str, Any]:
        """The adventure, when it has so many entries. What is to be retried is retried at once."""

        async def there() -> dict[str, Any] | None:
            await self.execute("UPDATE procrastinate_jobs SET scheduled_at = now() WHERE scheduled_at > now()")
            now = (await self.api.get(f"/adventures/{adventure['id']}")).json()
            return now if [each["status"] for each in now["entries"]] == ["complete"] * entries else None

        found = await eventually(there, within=60)
        assert found is not None
        return found

    async def calls(self, *, answered: bool = True) -> Counter[str]:
        """How often each service was asked, and has answered as it should unless told otherwise."""
        async with httpx2.AsyncClient() as client:
            calls = (await client.get(f"{self.services}/calls")).json()
        return Counter(call["vendor"] for call in calls if not answered or call["trouble"] is None)

    async def execute(self, *statements: str) -> None:
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)

    async def value(self, statement: str) -> Any:
        async with self.engine.connect() as connection:
            return await connection.scalar(text(statement))


@contextlib.contextmanager
def services_process(settings: Settings, log: Path) -> Iterator[str]:
    """`python -m app.outbound.stubs`; where it will answer."""
    port = free_port()
    with running("-m", "app.outbound.stubs", str(port), env=environment(settings), log=log):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def stage(settings: Settings, engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Stage]:
    log = tmp_path / "processes.log"
    with services_process(settings, log) as services:
        async with (
            api_process(settings, log, JWT_SECRET=JWT_SECRET, DATA_DIR=str(tmp_path)) as (url, _),
            httpx2.AsyncClient(base_url=url, headers=bearer(token("ada")), timeout=30) as api,
        ):
            yield Stage(api, services, settings, engine, log, tmp_path)


async def test_an_adventure_goes_from_its_beginning_through_three_decisions(stage: Stage) -> None:
    adventure = await stage.begin()
    with stage.worker():
        for entries in (1, 2, 3):
            adventure = await stage.complete(adventure, entries)
            choice = adventure["entries"][-1]["choices"][0]
            decided = await stage.api.post(f"/adventures/{adventure['id']}/decisions", json={"choice_id": choice["id"]})
            assert decided.status_code == 201, decided.text
        adventure = await stage.complete(adventure, 4)
    assert adventure["status"] == "active"
    for entry in adventure["entries"]:
        assert "[stub " in entry["text"]
        assert entry["translation"] == f"[en] {entry['text']}"
        sound = await stage.api.get(entry["audio_url"])
        assert (sound.status_code, sound.content[:4]) == (200, b"RIFF")
        assert all(entry["text"][word["start"] :].startswith(word["text"]) for word in entry["words"])
    assert len({entry["text"] for entry in adventure["entries"]}) == 4
    assert await stage.calls(answered=False) == dict.fromkeys(ONCE_EACH, 4)
    assert [each["id"] for each in (await stage.api.get("/adventures")).json()["items"]] == [adventure["id"]]
    others = await stage.api.get(f"/adventures/{adventure['id']}", headers=bearer(token("bob")))
    assert others.status_code == 404


async def test_a_step_that_fails_repeats_none_before_it(stage: Stage) -> None:
    await stage.execute(*FAIL_ONCE)
    with stage.worker():
        adventure = await stage.complete(await stage.begin())
    run = (await stage.api.get(f"/runs/{adventure['entries'][0]['run_id']}")).json()
    assert (run["state"], run["attempt"]) == ("succeeded", 2)
    assert await stage.calls(answered=False) == ONCE_EACH


async def test_a_service_that_fails_twice_is_asked_three_times_and_the_others_once(stage: Stage) -> None:
    with stage.worker():
        await stage.complete(await stage.begin("[stub:deepl:500 x2]"))
    assert await stage.calls(answered=False) == ONCE_EACH | {"deepl": 3}


async def test_workers_killed_before_a_service_has_answered_pay_each_once(stage: Stage) -> None:
    adventure = await stage.begin("[stub:deepl:slow x1] [stub:gemini:slow x1]")
    for vendor in ("deepl", "gemini"):
        with stage.worker() as worker:

            async def asked(vendor: str = vendor) -> int:
                return (await stage.calls(answered=False))[vendor]

            await eventually(asked, within=60)
            worker.kill()
            worker.wait()
    with stage.worker():
        await stage.complete(adventure)
    assert await stage.calls() == ONCE_EACH
    assert await stage.value("SELECT attempt FROM action_runs") == 3


async def test_workers_killed_before_a_step_is_stored_pay_each_service_once(stage: Stage) -> None:
    adventure = await stage.begin()
    for step in ("analyse", "store"):
        async with gate(stage.engine, before_step(step)) as reached:
            with stage.worker() as worker:
                await reached()
                worker.kill()
                worker.wait()
    with stage.worker():
        adventure = await stage.complete(adventure)

        async def ended() -> bool:
            return await stage.value("SELECT state FROM action_runs") == "succeeded"

        await eventually(ended, within=60)
    assert await stage.calls(answered=False) == ONCE_EACH
    assert len(adventure["entries"][0]["choices"]) == 3
    assert await stage.value("SELECT attempt FROM action_runs") == 3
