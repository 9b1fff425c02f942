"""Adventures, end to end: API, worker and the services that they call are processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.callers import JWT_SECRET, bearer, token
from tests.support.eventually import eventually
from tests.support.gates import before_step, gate
from tests.support.processes import api_process
from tests.support.stage import Stage, staged

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
class Library(Stage):
    """The API, and a reader of it."""

    api: httpx2.AsyncClient

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


@pytest.fixture
async def stage(settings: Settings, engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Library]:
    async with (
        staged(settings, engine, tmp_path) as stage,
        api_process(settings, stage.log, JWT_SECRET=JWT_SECRET, DATA_DIR=str(tmp_path)) as (url, _),
        httpx2.AsyncClient(base_url=url, headers=bearer(token("ada")), timeout=30) as api,
    ):
        yield Library(**vars(stage), api=api)


async def test_an_adventure_goes_from_its_beginning_through_three_decisions(stage: Library) -> None:
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
    assert await stage.calls() == dict.fromkeys(ONCE_EACH, 4)
    assert [each["id"] for each in (await stage.api.get("/adventures")).json()["items"]] == [adventure["id"]]
    others = await stage.api.get(f"/adventures/{adventure['id']}", headers=bearer(token("bob")))
    assert others.status_code == 404


async def test_a_step_that_fails_repeats_none_before_it(stage: Library) -> None:
    await stage.execute(*FAIL_ONCE)
    with stage.worker():
        adventure = await stage.complete(await stage.begin())
    run = (await stage.api.get(f"/runs/{adventure['entries'][0]['run_id']}")).json()
    assert (run["state"], run["attempt"]) == ("succeeded", 2)
    assert await stage.calls() == ONCE_EACH


async def test_a_service_that_fails_twice_is_asked_three_times_and_the_others_once(stage: Library) -> None:
    with stage.worker():
        await stage.complete(await stage.begin("[stub:deepl:500 x2]"))
    assert await stage.calls() == ONCE_EACH | {"deepl": 3}


async def test_a_service_that_asks_for_patience_seven_times_costs_no_attempt_and_makes_no_error(stage: Library) -> None:
    with stage.worker():
        adventure = await stage.complete(await stage.begin("[stub:deepl:429 x7]"))
    run = (await stage.api.get(f"/runs/{adventure['entries'][0]['run_id']}")).json()
    assert (run["state"], run["attempt"], run["error"]) == ("succeeded", 1, None)
    assert await stage.value("SELECT snoozes FROM action_runs") == 7
    assert await stage.calls() == ONCE_EACH | {"deepl": 8}


async def test_workers_killed_before_a_service_has_answered_pay_each_once(stage: Library) -> None:
    adventure = await stage.begin("[stub:deepl:slow x1] [stub:gemini:slow x1]")
    for vendor in ("deepl", "gemini"):
        await stage.kill_a_worker(stage.asked(vendor))
    with stage.worker():
        await stage.complete(adventure)
    assert await stage.calls(answered=True) == ONCE_EACH
    assert await stage.value("SELECT attempt FROM action_runs") == 3


async def test_a_storage_that_is_down_does_not_have_the_speech_made_again(stage: Library) -> None:
    no_folder = stage.folder / "files"
    no_folder.write_text("The storage is down.")
    adventure = await stage.begin()
    with stage.worker():
        await eventually(lambda: stage.value("SELECT 1 FROM action_runs WHERE state = 'retrying'"), within=60)
        no_folder.unlink()
        adventure = await stage.complete(adventure)
    assert await stage.calls() == ONCE_EACH
    assert await stage.value("SELECT attempt FROM action_runs") == 2
    sound = await stage.api.get(adventure["entries"][0]["audio_url"])
    assert (sound.status_code, sound.content[:4]) == (200, b"RIFF")
    assert await stage.value("SELECT count(*) FROM adventure_speeches") == 0


async def test_workers_killed_before_a_step_is_stored_pay_each_service_once(stage: Library) -> None:
    adventure = await stage.begin()
    for step in ("speak", "store"):
        async with gate(stage.engine, before_step(step)) as reached:
            await stage.kill_a_worker(reached)
    with stage.worker():
        adventure = await stage.complete(adventure)

        async def ended() -> bool:
            return await stage.value("SELECT state FROM action_runs") == "succeeded"

        await eventually(ended, within=60)
    assert await stage.calls() == ONCE_EACH
    assert len(adventure["entries"][0]["choices"]) == 3
    assert await stage.value("SELECT attempt FROM action_runs") == 3
