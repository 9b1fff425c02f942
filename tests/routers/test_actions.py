"""The catalogue, and the door of the roadmap document."""

from __future__ import annotations

from typing import Annotated

import httpx2
import pytest
from pydantic import Field
from tests.support.serving import open_api
from tests.support.workshop import Workshop

from app.engine.limits import Limit, Rate
from app.engine.retry import Retry


@pytest.fixture(autouse=True)
def actions(workshop: Workshop) -> None:
    @workshop.action()
    async def greet(name: Annotated[str, Field(examples=["Ada"])], loudness: int = 1) -> dict[str, str]:
        """Say hello."""
        return {"said": f"hello {name}"}


async def test_the_catalogue_says_what_an_action_takes_and_returns(api: httpx2.AsyncClient) -> None:
    (action,) = (await api.get("/actions")).json()
    assert (action["name"], action["description"], action["queue"]) == ("greet", "Say hello.", "default")
    assert action["input_schema"]["properties"]["name"]["type"] == "string"
    assert action["output_schema"]["type"] == "object"
    assert action["example"] == {"name": "Ada"}
    assert (await api.get("/actions/greet")).json() == action
    assert (await api.get("/actions/nothing")).status_code == 404


async def test_the_catalogue_says_what_the_runs_of_an_action_are_given(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    limit = Limit(concurrency=2, rate=Rate(10, seconds=60), by="customer")

    @workshop.action(
        queue="mail",
        priority=3,
        lock="one",
        queueing_lock="waits",
        retry=Retry(max_attempts=7),
        timeout=1.5,
        limit=limit,
        idempotency="required",
        scope="admin",
    )
    async def sync(customer: str) -> None: ...

    action = (await api.get("/actions/sync")).json()
    told = {name: value for name, value in action.items() if not name.endswith("schema")}
    assert told == {
        "name": "sync",
        "description": "",
        "queue": "mail",
        "priority": 3,
        "lock": "one",
        "queueing_lock": "waits",
        "max_attempts": 7,
        "timeout": 1.5,
        "limit": {"concurrency": 2, "rate": {"count": 10, "seconds": 60, "burst": 10}, "by": "customer"},
        "idempotency": "required",
        "scope": "admin",
        "example": {"customer": "text"},
    }
    greeting = (await api.get("/actions/greet")).json()
    assert (greeting["timeout"], greeting["limit"], greeting["lock"]) == (None, None, None)
    assert (greeting["idempotency"], greeting["scope"]) == ("optional", "runs:write")


async def test_the_door_takes_keys_and_waits_as_the_canonical_one(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    body, headers = {"action": "greet", "params": {"name": "Ada"}}, {"idempotency-key": "k"}
    first = await api.post("/actions/run", json=body, headers=headers)
    await workshop.drain()
    again = await api.post("/actions/run", json=body, headers=headers | {"prefer": "wait=5"})
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.headers["preference-applied"] == "wait=5"
    assert again.json() == {"run_id": first.json()["run_id"], "status": "success"}


async def test_the_documents_calls_work_verbatim(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    headers = {"X-ROADMAP-AI-SECRET": "dev-secret"}
    answer = await api.post("/actions/run", json={"action": "greet", "params": {"name": "Ada"}}, headers=headers)
    assert answer.status_code == 202
    run_id = answer.json()["run_id"]
    assert answer.json() == {"run_id": run_id, "status": "queued"}
    assert answer.headers["location"] == f"/actions/run/{run_id}"
    await workshop.drain()
    body = (await api.get(f"/actions/run/{run_id}", headers=headers)).json()
    assert (body["status"], body["result"]) == ("success", {"said": "hello Ada"})


@pytest.mark.parametrize("sent", ["wrong", "", "é"])
async def test_a_secret_that_is_sent_is_always_checked(api: httpx2.AsyncClient, sent: str) -> None:
    answer = await api.get("/actions", headers=[(b"x-roadmap-ai-secret", sent.encode("latin-1"))])
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("client", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("127.0.0.1", "localhost:8000", 200),
        ("::1", "[::1]:8000", 200),
        ("127.0.0.1", "evil.example", 401),
        ("203.0.113.9", "127.0.0.1:8000", 401),
        ("no-address", "127.0.0.1:8000", 401),
    ],
)
async def test_while_it_is_open_only_this_machine_is_served_and_no_name_that_was_made_to_lead_here(
    workshop: Workshop, client: str, host: str, status: int
) -> None:
    async with open_api(workshop) as app:
        transport = httpx2.ASGITransport(app=app, client=(client, 5000))
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as sender:
            assert (await sender.get("/actions", headers={"host": host})).status_code == status
