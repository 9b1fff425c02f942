"""The audit log: every write with its actor, and nobody changes it afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from tests.support import callers
from tests.support.callers import Caller, bearer, guarded, secret, token
from tests.support.serving import open_api
from tests.support.workshop import Workshop

from app.access import audit, keys

ADMIN = bearer(token("root", scope="admin"))
ECHO = {"action": "echo", "params": {"message": "x"}}


@pytest.fixture
async def call(workshop: Workshop) -> AsyncIterator[Caller]:
    @workshop.action()
    async def echo(message: str) -> str:
        return message

    async with open_api(workshop, guarded(workshop.settings)) as app:
        yield Caller(app)


async def told(call: Caller, **query: Any) -> list[tuple[Any, ...]]:
    """The log, oldest first, without ids and times."""
    items = (await call("GET", "/audit", ADMIN, params=query)).json()["items"]
    return [(item["actor"], item["route"], item["object_id"], item["outcome"]) for item in reversed(items)]


async def test_every_write_is_there_with_its_actor_and_what_came_of_it(call: Caller, workshop: Workshop) -> None:
    ada, key = bearer(token("ada")), await callers.key(workshop.engine, "bob")
    key_id = keys.id_of(key.encode())
    first = (await call("POST", "/runs", ada, json=ECHO)).json()["id"]
    batch = (await call("POST", "/runs/batch", secret(), json={"runs": [ECHO, {"action": "no"}, ECHO]})).json()["items"]
    second = (await call("POST", "/actions/run", bearer(key), json=ECHO)).json()["run_id"]
    await call("POST", f"/runs/{first}/cancel", bearer(key))
    await call("POST", f"/runs/{first}/cancel", ada)
    await call("POST", f"/runs/{first}/cancel", ada)
    await call("POST", f"/runs/{first}/cancel", bearer(token("ada", scope="runs:read")))
    assert await told(call) == [
        ("cli", "runledger keys create", key_id, 201),
        ("jwt:ada", "POST /runs", first, 202),
        ("secret", "POST /runs/batch", batch[0]["id"], 202),
        ("secret", "POST /runs/batch", batch[2]["id"], 202),
        ("secret", "POST /runs/batch", None, 404),
        (f"key:{key_id}", "POST /actions/run", second, 202),
        (f"key:{key_id}", "POST /runs/{run_id}/cancel", first, 404),
        ("jwt:ada", "POST /runs/{run_id}/cancel", first, 200),
        ("jwt:ada", "POST /runs/{run_id}/cancel", first, 200),
        ("jwt:ada", "POST /runs/{run_id}/cancel", first, 403),
    ]
    assert await told(call, object_id=second) == [(f"key:{key_id}", "POST /actions/run", second, 202)]
    assert len(await told(call, actor="secret")) == 3


async def test_what_of_a_batch_is_refused_is_there_like_a_refusal_of_one_and_what_is_not_understood_is_not(
    call: Caller, workshop: Workshop
) -> None:
    key = await callers.key(workshop.engine, "bob", "actions:echo")
    key_id = keys.id_of(key.encode())
    queued = ECHO | {"queueing_lock": "one"}
    asked = [queued, queued, {"action": "no"}, {"action": "echo"}, 7]
    answer = await call("POST", "/runs/batch", bearer(key), json={"runs": asked})
    items = answer.json()["items"]
    assert [item.get("error", {}).get("status") for item in items] == [None, 409, 403, 422, 422]
    assert (await told(call))[1:] == [
        (f"key:{key_id}", "POST /runs/batch", items[0]["id"], 202),
        (f"key:{key_id}", "POST /runs/batch", None, 409),
        (f"key:{key_id}", "POST /runs/batch", None, 403),
    ]


async def test_what_is_read_or_not_understood_or_of_nobody_is_not_written_down(call: Caller) -> None:
    await call("GET", "/runs", secret())
    await call("POST", "/runs", secret(), json={"action": 7})
    await call("POST", "/runs", secret(), content=b"{")
    await call("POST", "/runs", secret("wrong"), json=ECHO)
    await call("POST", "/runs", json=ECHO)
    assert await told(call) == []


async def test_what_no_column_can_hold_is_written_down_as_far_as_it_can(call: Caller) -> None:
    for named in ("%00", "%ff", "x" * 300):
        answer = await call("POST", f"/runs/{named}/cancel", secret())
        assert answer.status_code in (404, 422)
    assert all(outcome == 404 for *_, outcome in await told(call))


async def test_runs_that_nobody_outside_asked_for_are_not_in_it(workshop: Workshop, call: Caller) -> None:
    await workshop.submit("echo", message="x")
    assert await told(call) == []


async def test_a_page_follows_the_other(call: Caller) -> None:
    await call("POST", "/runs/batch", secret(), json={"runs": [ECHO] * 5})
    seen, cursor = [], None
    while True:
        page = (await call("GET", "/audit", ADMIN, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item["id"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert (len(seen), seen) == (5, sorted(seen, reverse=True))
    for cursor in ("x", "-1", "9" * 19, "1.5"):
        assert (await call("GET", "/audit", ADMIN, params={"cursor": cursor})).status_code == 400


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "TRUNCATE audit_log CASCADE",
    ],
)
async def test_nobody_changes_it_afterwards(workshop: Workshop, statement: str) -> None:
    await audit.record(workshop.engine, actor="ada", route="x", object_id=None, outcome=200)
    with pytest.raises(DBAPIError, match="append-only"):
        await workshop.execute(statement)
    assert await workshop.value("SELECT actor FROM audit_log") == "ada"


async def test_only_what_is_older_than_is_kept_is_deleted_and_by_one_function(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await workshop.execute(
        "INSERT INTO audit_log (at, actor, route, outcome) "
        "SELECT now() - n * interval '1 day', 'ada', 'x', 200 FROM generate_series(20, 0, -1) AS n"
    )
    monkeypatch.setattr(audit, "PRUNE_BATCH", 3)
    assert await audit.prune(workshop.engine, older_than=timedelta(days=10, hours=1)) == 10
    assert await workshop.value("SELECT max(now() - at) < interval '10 days 1 minute' FROM audit_log")
    assert await workshop.value("SELECT count(*) FROM audit_log") == 11
    # No mistake takes away what was done today.
    await audit.prune(workshop.engine, older_than=timedelta(0))
    assert await workshop.value("SELECT count(*) FROM audit_log") == 1
    with pytest.raises(DBAPIError, match="append-only"):
        await workshop.execute("DELETE FROM audit_log")


async def test_what_is_done_is_told_even_when_the_log_cannot_be_written(
    call: Caller, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    run = (await call("POST", "/runs", secret(), json=ECHO)).json()["id"]
    await workshop.execute("ALTER TABLE audit_log ADD CHECK (outcome <> 200)")
    assert (await call("POST", f"/runs/{run}/cancel", secret())).status_code == 200
    assert f"Not in the audit log: secret POST /runs/{{run_id}}/cancel '{run}' 200" in caplog.text
