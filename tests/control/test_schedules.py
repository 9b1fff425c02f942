"""Schedules over HTTP: those of the code and those of callers, each tick a run, once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from tests.support.workshop import Workshop

from app.engine.schedule import AllUpTo, Scheduler

GREETING = {
    "name": "greeting",
    "action": "echo",
    "params": {"message": "Good morning"},
    "cron": "30 6 * * 1-5",
    "zone": "Europe/Berlin",
}


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action(queue="mail", priority=3)
    async def echo(message: str) -> str:
        return message

    @workshop.queue.periodic(cron="17 3 * * *", missed=AllUpTo(3))
    @workshop.action()
    async def nightly(timestamp: int) -> int:
        return timestamp


def scheduler(workshop: Workshop) -> Scheduler:
    return Scheduler(workshop.queue.connector, workshop.queue.schedules, workshop.queue.tasks)


async def create(api: httpx2.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await api.post("/schedules", json={**GREETING, **changes})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/schedules/{answer.json()['name']}"
    return answer.json()


async def back(workshop: Workshop, minutes: int) -> None:
    await workshop.execute(
        "UPDATE schedules SET last_tick = date_trunc('minute', now()) - :minutes * interval '1 minute'", minutes=minutes
    )


async def test_a_schedule_of_the_code_is_told_before_any_worker_has_registered_it(api: httpx2.AsyncClient) -> None:
    [nightly] = (await api.get("/schedules")).json()["items"]
    assert (nightly["name"], nightly["cron"], nightly["missed"]) == ("nightly", "17 3 * * *", 3)
    assert (nightly["is_declared"], nightly["last_tick"], nightly["last_runs"]) == (True, None, [])
    assert nightly["description"] == "At 03:17 AM"


async def test_a_created_schedule_tells_its_ticks_by_the_clocks_of_its_zone(api: httpx2.AsyncClient) -> None:
    created = await create(api)
    assert created["description"] == "At 06:30 AM, Monday through Friday"
    assert created["created_by"] == "local"
    assert len(created["next"]) == 5
    assert all("T06:30:00+0" in tick for tick in created["next"])
    assert (await api.get("/schedules/greeting")).json() == created
    names = [item["name"] for item in (await api.get("/schedules")).json()["items"]]
    assert names == ["greeting", "nightly"]


async def test_each_tick_of_a_created_schedule_is_one_run_with_its_params(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    await create(api, cron="* * * * *", missed=1000)
    await back(workshop, 10)
    for _ in range(3):
        await asyncio.gather(*(scheduler(workshop).fire_due() for _ in range(3)))
    await workshop.drain()
    rows = await workshop.fetch("SELECT * FROM action_runs WHERE action = 'echo' ORDER BY job_id")
    assert 10 <= len(rows) <= 11
    assert {(row["state"], row["result"], row["queue"], row["priority"]) for row in rows} == {
        ("succeeded", "Good morning", "mail", 3)
    }
    known = (await api.get("/schedules/greeting")).json()
    assert [run["id"] for run in known["last_runs"]] == [row["id"] for row in rows][::-1][:5]
    assert {run["state"] for run in known["last_runs"]} == {"succeeded"}
    events = await workshop.fetch("SELECT data FROM run_events WHERE run_id = :id ORDER BY seq", id=rows[0]["id"])
    assert [event["data"]["state"] for event in events] == ["queued", "running", "succeeded"]


async def test_a_worker_begins_with_a_schedule_that_is_created_while_it_works(
    api: httpx2.AsyncClient, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.schedule.LONGEST_SLEEP_SECONDS", 0.1)
    async with workshop.working():
        await create(api, cron="* * * * * *")
        run_id = None
        while not run_id:
            run_id = await workshop.value("SELECT id FROM action_runs WHERE action = 'echo' LIMIT 1")
        await workshop.reaches(await workshop.get(run_id), "succeeded")


async def test_a_schedule_can_be_run_now(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await create(api)
    await workshop.execute("UPDATE schedules SET owner = 'ada' WHERE params IS NOT NULL")
    for name, result in (("greeting", "Good morning"), ("nightly", None)):
        answer = await api.post(f"/schedules/{name}/run")
        assert answer.status_code == 202
        await workshop.drain()
        run = (await api.get(answer.headers["location"])).json()
        assert run["state"] == "succeeded"
        assert run["tags"] == [f"schedule:{name}"]
        assert result is None or run["result"] == result
        known = (await api.get(f"/schedules/{name}")).json()
        assert name == "nightly" or [run["id"]] == [each["id"] for each in known["last_runs"]]
    assert await workshop.value("SELECT owner FROM action_runs WHERE action = 'echo'") == "ada"


@pytest.mark.parametrize("name", ["greeting", "nightly"])
async def test_a_paused_schedule_fires_nothing_and_its_ticks_are_over(
    api: httpx2.AsyncClient, workshop: Workshop, name: str
) -> None:
    await create(api, cron="* * * * *", missed=1000)
    paused = (await api.post(f"/schedules/{name}/pause")).json()
    assert paused["paused"]["by"] == "local"
    assert paused["next"] == []
    await back(workshop, 3 * 24 * 60)
    await scheduler(workshop).fire_due()
    action = "echo" if name == "greeting" else "nightly"
    count = "SELECT count(*) FROM action_runs WHERE action = :action"
    assert await workshop.value(count, action=action) == 0
    resumed = (await api.post(f"/schedules/{name}/resume")).json()
    assert resumed["paused"] is None
    await scheduler(workshop).fire_due()
    assert await workshop.value(count, action=action) <= 1, "only a tick that came since"
    await back(workshop, 2 * 24 * 60)
    await scheduler(workshop).fire_due()
    assert await workshop.value(count, action=action) >= 2


async def test_a_deleted_schedule_fires_nothing_more_and_its_runs_stay(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    await create(api, cron="* * * * *")
    await back(workshop, 5)
    await scheduler(workshop).fire_due()
    assert (await api.delete("/schedules/greeting")).status_code == 204
    assert (await api.get("/schedules/greeting")).status_code == 404
    await scheduler(workshop).fire_due()
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE action = 'echo'") == 1


async def test_a_schedule_of_the_code_cannot_be_deleted(api: httpx2.AsyncClient) -> None:
    answer = await api.delete("/schedules/nightly")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/schedule-declared")


async def test_a_name_is_taken_once(api: httpx2.AsyncClient) -> None:
    await create(api)
    for name in ("greeting", "nightly", "echo"):
        answer = await api.post("/schedules", json={**GREETING, "name": name, "cron": "* * * * *"})
        assert (answer.status_code, answer.json()["type"]) == (409, "/problems/schedule-exists")
    assert (await api.get("/schedules/greeting")).json()["cron"] == GREETING["cron"]


@pytest.mark.parametrize(
    ("changes", "status", "pointer"),
    [
        ({"cron": "every day"}, 422, "/cron"),
        ({"cron": "61 * * * *"}, 422, "/cron"),
        ({"cron": "0 0 30 2 *"}, 422, "/cron"),
        ({"cron": "@daily"}, 422, "/cron"),
        ({"cron": "R R * * *"}, 422, "/cron"),
        ({"cron": "* * * * * * 2099"}, 422, "/cron"),
        ({"cron": "*" * 200}, 422, "/cron"),
        ({"cron": ""}, 422, "/cron"),
        ({"zone": "Berlin"}, 422, "/zone"),
        ({"zone": "../etc/passwd"}, 422, "/zone"),
        ({"zone": ""}, 422, "/zone"),
        ({"missed": "all"}, 422, None),
        ({"missed": 0}, 422, None),
        ({"name": "a b"}, 422, "/name"),
        ({"params": {"message": 7}}, 422, "/params/message"),
        ({"params": {}}, 422, "/params/message"),
        ({"action": "nothing"}, 404, None),
        ({"enabled": True}, 422, "/enabled"),
    ],
)
async def test_what_no_worker_could_understand_is_refused(
    api: httpx2.AsyncClient, workshop: Workshop, changes: dict[str, Any], status: int, pointer: str | None
) -> None:
    answer = await api.post("/schedules", json={**GREETING, **changes})
    assert answer.status_code == status
    assert pointer is None or answer.json()["errors"][0]["pointer"] == pointer
    assert await workshop.value("SELECT count(*) FROM schedules") == 0


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/run"), ("POST", "/pause")])
async def test_a_schedule_that_there_is_not_is_a_404(api: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await api.request(method, f"/schedules/nothing{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/schedule-not-found")


async def test_what_sql_has_made_of_a_schedule_stops_no_other(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    await create(api, cron="* * * * *")
    await create(api, name="broken", cron="* * * * *")
    await workshop.execute("UPDATE schedules SET cron = 'never', zone = 'nowhere' WHERE periodic_id = 'broken'")
    await back(workshop, 3)
    await scheduler(workshop).fire_due()
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE action = 'echo'") == 1
    items = (await api.get("/schedules")).json()["items"]
    assert {item["name"]: len(item["next"]) for item in items} == {"broken": 0, "greeting": 5, "nightly": 5}
