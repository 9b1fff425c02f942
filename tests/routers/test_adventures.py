"""Adventures over HTTP: what is stored with what, who sees it, and what becomes of an entry when its run ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from fastapi import Request
from tests.support.workshop import Workshop

from app.access.principal import EVERYTHING, Principal
from app.config import Settings
from app.domain.adventures import pipeline
from app.domain.adventures.pipeline import Entry
from app.engine.retry import Retry
from app.outbound.clients import STUBS
from app.outbound.postgres.adventures import AdventureShelf
from app.outbound.stubs import Stubs
from app.routers import security
from app.runs.context import Run

FRENCH = {"language": "fr", "native_language": "en", "level": "A2", "premise": "A lighthouse."}
ADA, BOB, ROOT = ({"x-test-owner": name} for name in ("ada", "bob", ""))


@pytest.fixture
async def settings(settings: Settings, tmp_path: Path) -> AsyncIterator[Settings]:
    """With stubs that are there for all workers of a test: they count how often they were asked."""
    async with contextlib.aclosing(Stubs(STUBS)) as stubs:
        served_at = stubs.url("").rstrip("/")
        yield settings.model_copy(update={"stub_generation": True, "stubs_url": served_at, "data_dir": tmp_path})


@pytest.fixture(autouse=True)
def pipeline_action(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def identify(request: Request) -> Principal:
        name = request.headers.get("x-test-owner")
        return Principal(f"test:{name}", name or None, EVERYTHING)

    monkeypatch.setattr(security, "identify", identify)

    @workshop.action(pipeline.ACTION, queue="adventure_pipeline", retry=Retry(max_attempts=3, base=30))
    async def generate(run: Run, adventure_id: UUID, entry_id: UUID, user_id: str | None = None) -> Entry:
        shelf = AdventureShelf(workshop.engine, run_id=run.id)
        entry = Entry(adventure_id=adventure_id, entry_id=entry_id)
        return await pipeline.generate(run, run.clients, shelf, entry, owner=user_id)


async def begin(api: httpx2.AsyncClient, who: dict[str, str] = ADA, **more: Any) -> dict[str, Any]:
    answer = await api.post("/adventures", json=FRENCH | more, headers=who)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/adventures/{answer.json()['id']}"
    return answer.json()


async def read(api: httpx2.AsyncClient, adventure: dict[str, Any], who: dict[str, str] = ADA) -> dict[str, Any]:
    return (await api.get(f"/adventures/{adventure['id']}", headers=who)).json()


async def decide(api: httpx2.AsyncClient, adventure: dict[str, Any], choice: str) -> httpx2.Response:
    return await api.post(f"/adventures/{adventure['id']}/decisions", json={"choice_id": choice}, headers=ADA)


async def test_an_adventure_begins_and_goes_on(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    adventure = await begin(api)
    assert (adventure["status"], [each["status"] for each in adventure["entries"]]) == (
        "awaiting_first_entry",
        ["pending"],
    )
    await workshop.drain()
    adventure = await read(api, adventure)
    [entry] = adventure["entries"]
    assert (adventure["status"], entry["status"]) == ("active", "complete")
    assert "[stub " in entry["text"]
    assert entry["translation"] == f"[en] {entry['text']}"
    assert entry["words"][0]["text"] == entry["text"].split()[0]
    assert len(entry["choices"]) == 3
    sound = await api.get(entry["audio_url"])
    assert (sound.status_code, sound.content[:4]) == (200, b"RIFF")

    answer = await decide(api, adventure, entry["choices"][1]["id"])
    assert answer.status_code == 201, answer.text
    assert [each["status"] for each in answer.json()["entries"]] == ["complete", "pending"]
    await workshop.drain()
    first, second = (await read(api, adventure))["entries"]
    assert first["chosen"] == entry["choices"][1]["id"]
    assert (second["status"], second["text"] != first["text"]) == ("complete", True)


async def test_an_adventure_sent_again_with_its_key_is_the_same_one(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    first = await api.post("/adventures", json=FRENCH, headers=ADA | {"idempotency-key": "k"})
    await workshop.drain()
    again = await api.post("/adventures", json=FRENCH, headers=ADA | {"idempotency-key": '"k"'})
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert again.json()["status"] == "active", "as it is now"
    bobs = await api.post("/adventures", json=FRENCH, headers=BOB | {"idempotency-key": "k"})
    assert (bobs.status_code, bobs.json()["id"] != first.json()["id"]) == (201, True)
    assert await workshop.value("SELECT count(*) FROM adventures") == 2


@pytest.mark.parametrize(("path", "more"), [("/adventures", {"premise": "Another."}), ("/runs", {})])
async def test_a_key_of_an_adventure_sent_with_something_else_is_422(
    api: httpx2.AsyncClient, workshop: Workshop, path: str, more: dict[str, Any]
) -> None:
    await api.post("/adventures", json=FRENCH, headers=ADA | {"idempotency-key": "k"})
    body = (
        FRENCH | more
        if path == "/adventures"
        else {"action": pipeline.ACTION, "params": {"adventure_id": str(uuid4()), "entry_id": str(uuid4())}}
    )
    answer = await api.post(path, json=body, headers=ADA | {"idempotency-key": "k"})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert await workshop.value("SELECT count(*) FROM adventures") == 1


async def test_fifty_adventures_of_one_key_at_once_are_one(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    headers = ADA | {"idempotency-key": "k"}
    answers = await asyncio.gather(*(api.post("/adventures", json=FRENCH, headers=headers) for _ in range(50)))
    made = [answer for answer in answers if answer.status_code == 201]
    others = {answer.json()["type"] for answer in answers if answer.status_code != 201}
    assert others <= {"/problems/idempotency-in-flight"}
    assert len({answer.json()["id"] for answer in made}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in made) == 1
    assert await workshop.value("SELECT count(*) FROM adventures") == 1
    assert await workshop.value("SELECT count(*) FROM action_runs") == 1


async def test_a_decision_sent_again_with_its_key_is_one_decision(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    adventure = await begin(api)
    await workshop.drain()
    [entry] = (await read(api, adventure))["entries"]
    path, [choice, other, *_] = f"/adventures/{adventure['id']}/decisions", entry["choices"]
    headers = ADA | {"idempotency-key": "k"}
    answers = await asyncio.gather(
        *(api.post(path, json={"choice_id": choice["id"]}, headers=headers) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["type"] for answer in answers if answer.is_error} <= {"/problems/idempotency-in-flight"}
    again = await api.post(path, json={"choice_id": choice["id"]}, headers=headers)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert len(again.json()["entries"]) == 2
    reused = await api.post(path, json={"choice_id": other["id"]}, headers=headers)
    assert reused.json()["type"] == "/problems/idempotency-key-reused"
    decided = await api.post(path, json={"choice_id": other["id"]}, headers=ADA)
    assert (decided.status_code, decided.json()["type"]) == (409, "/problems/choice-decided")


async def test_a_refused_decision_does_not_use_up_its_key(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    adventure = await begin(api)
    await workshop.drain()
    [entry] = (await read(api, adventure))["entries"]
    path, headers = f"/adventures/{adventure['id']}/decisions", ADA | {"idempotency-key": "k"}
    assert (await api.post(path, json={"choice_id": str(uuid4())}, headers=headers)).status_code == 422
    chosen = {"choice_id": entry["choices"][0]["id"]}
    assert (await api.post(path, json=chosen, headers=headers)).status_code == 201


async def test_what_was_chosen_is_told_to_the_storyteller(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    adventure = await begin(api)
    await workshop.drain()
    [entry] = (await read(api, adventure))["entries"]
    choice = entry["choices"][0]
    adventure = (await decide(api, adventure, choice["id"])).json()
    shelf = AdventureShelf(workshop.engine, run_id=adventure["entries"][1]["run_id"])
    telling = await shelf.get_telling(UUID(adventure["id"]), UUID(adventure["entries"][1]["id"]), owner="ada")
    assert telling is not None
    assert telling["told"] == [{"text": entry["text"], "chosen": choice["text"]}]


async def test_the_run_is_its_reader_s(api: httpx2.AsyncClient) -> None:
    adventure = await begin(api)
    run_id = adventure["entries"][0]["run_id"]
    run = (await api.get(f"/runs/{run_id}", headers=ADA)).json()
    assert (run["action"], run["queue"], run["max_attempts"]) == (pipeline.ACTION, "adventure_pipeline", 3)
    assert (await api.get(f"/runs/{run_id}", headers=BOB)).status_code == 404


async def test_an_adventure_without_a_run_is_not_stored(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.execute(
        "ALTER TABLE procrastinate_jobs ADD CONSTRAINT no CHECK (task_name <> 'generate_adventure_entry')"
    )
    assert (await api.post("/adventures", json=FRENCH, headers=ADA)).is_error
    assert (await api.get("/adventures", headers=ADA)).json()["items"] == []


async def test_a_run_without_an_adventure_is_not_stored(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await workshop.execute("ALTER TABLE adventure_entries ADD CONSTRAINT no CHECK (run_id IS NULL)")
    assert (await api.post("/adventures", json=FRENCH, headers=ADA)).is_error
    assert await workshop.value("SELECT count(*) FROM action_runs") == 0


@pytest.mark.parametrize(("language", "native_language"), [("fr", "fr"), ("ja", "en"), ("fr", "xx"), ("xx", "en")])
async def test_languages_that_do_not_go_together_are_refused(
    api: httpx2.AsyncClient, language: str, native_language: str
) -> None:
    wrong = FRENCH | {"language": language, "native_language": native_language}
    answer = await api.post("/adventures", json=wrong, headers=ADA)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/language"
    assert "Stories are told in" in answer.json()["errors"][0]["detail"]


async def test_what_is_decided_stays_decided(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    adventure = await begin(api)
    await workshop.drain()
    choices = (await read(api, adventure))["entries"][0]["choices"]
    assert (await decide(api, adventure, choices[0]["id"])).status_code == 201
    for choice in choices:
        refused = await decide(api, adventure, choice["id"])
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/choice-decided")
    assert len((await read(api, adventure))["entries"]) == 2


async def test_a_choice_of_another_adventure_is_none(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    one, other = await begin(api), await begin(api)
    await workshop.drain()
    choice = (await read(api, one))["entries"][0]["choices"][0]["id"]
    for unknown in (choice, str(uuid4())):
        refused = await decide(api, other, unknown)
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/choice-not-found")


async def test_another_s_adventure_is_not_there(api: httpx2.AsyncClient) -> None:
    adventure = await begin(api)
    for method, path, body in (("GET", "", None), ("POST", "/decisions", {"choice_id": str(uuid4())})):
        told = [
            (await api.request(method, f"/adventures/{which}{path}", json=body, headers=BOB))
            for which in (adventure["id"], uuid4())
        ]
        assert [answer.status_code for answer in told] == [404, 404]
        assert {**told[0].json(), "instance": ""} == {**told[1].json(), "instance": ""}
    assert (await api.get("/adventures", headers=BOB)).json() == {"items": [], "next": None}
    assert len((await api.get("/adventures", headers=ROOT)).json()["items"]) == 1


async def test_a_list_goes_on_where_the_page_before_ended(api: httpx2.AsyncClient) -> None:
    begun = [(await begin(api))["id"] for _ in range(5)]
    seen: list[str] = []
    query = "limit=2"
    while query:
        page = (await api.get(f"/adventures?{query}", headers=ADA)).json()
        seen += [each["id"] for each in page["items"]]
        query = page["next"] and f"limit=2&cursor={page['next']}"
    assert seen == begun[::-1]


async def test_an_entry_is_an_error_only_after_its_last_attempt(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    adventure = await begin(api, premise="[stub:500]")
    await workshop.drain()
    assert (await read(api, adventure))["entries"][0]["status"] == "pending"
    await workshop.drain_all()
    adventure = await read(api, adventure)
    assert (adventure["status"], adventure["entries"][0]["status"]) == ("error", "error")
    run = await workshop.get(adventure["entries"][0]["run_id"])
    assert (run.state, run.attempt) == ("failed", 3)


async def test_an_entry_is_pending_again_when_its_run_is_retried(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    adventure = await begin(api, premise="[stub:500 x3]")
    await workshop.drain_all()
    run_id = (await read(api, adventure))["entries"][0]["run_id"]
    assert (await api.post(f"/runs/{run_id}/retry", headers=ADA)).status_code == 202
    assert (await read(api, adventure))["entries"][0]["status"] == "pending"
    await workshop.drain_all()
    assert (await read(api, adventure))["entries"][0]["status"] == "complete"


async def test_an_entry_whose_run_is_cancelled_is_an_error(api: httpx2.AsyncClient) -> None:
    adventure = await begin(api)
    await api.post(f"/runs/{adventure['entries'][0]['run_id']}/cancel", headers=ADA)
    assert (await read(api, adventure))["status"] == "error"


async def test_whoever_submits_the_action_changes_no_entry_but_his_own(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    adventure = await begin(api)
    params = {"adventure_id": adventure["id"], "entry_id": adventure["entries"][0]["id"], "user_id": "ada"}
    run = await api.post("/runs", json={"action": pipeline.ACTION, "params": params, "priority": 9}, headers=BOB)
    await workshop.drain(concurrency=1)
    run = (await api.get(f"/runs/{run.json()['id']}", headers=BOB)).json()
    assert run["state"] == "failed"
    assert "no such entry that this run may write" in run["error"]["detail"]
    assert (await read(api, adventure))["entries"][0]["status"] == "complete"


async def test_what_somebody_typed_keeps_no_run_from_ending(workshop: Workshop) -> None:
    await workshop.execute(
        "INSERT INTO procrastinate_jobs (task_name, args, queue_name) "
        """VALUES ('generate_adventure_entry', '{"entry_id": "nonsense"}', 'q')"""
    )
    await workshop.drain()
    assert await workshop.value("SELECT state FROM action_runs") == "failed"
