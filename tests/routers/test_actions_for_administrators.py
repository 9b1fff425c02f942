"""Actions whose runs only administrators may ask for: at every door, and not by this program itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support import callers
from tests.support.callers import Caller, bearer, guarded, secret, token
from tests.support.serving import open_api
from tests.support.workshop import Workshop

from app import tasks
from app.runs.actions import Actions
from app.runs.context import Run

DOORS: list[tuple[str, dict[str, Any]]] = [
    ("/runs", {"action": "purge"}),
    ("/runs", {"action": "purge", "unique": {"key": "u"}}),
    ("/actions/run", {"action": "purge"}),
    ("/jobs", {"payload": {"task": "purge"}}),
    ("/tasks", {"type": "purge", "payload": {}}),
]
ADMIN = bearer(token("root", scope="admin"))


@pytest.fixture
async def call(workshop: Workshop) -> AsyncIterator[Caller]:
    @workshop.action(scope="admin")
    async def purge() -> None: ...

    @workshop.action()
    async def tidy(run: Run) -> None:
        await run.spawn("purge", {})

    async with open_api(workshop, guarded(workshop.settings)) as app:
        yield Caller(app)


@pytest.mark.parametrize(("path", "body"), DOORS)
async def test_no_door_takes_it_from_somebody_else(
    call: Caller, workshop: Workshop, path: str, body: dict[str, Any]
) -> None:
    by_name = bearer(await callers.key(workshop.engine, "ada", "actions:purge"))
    for who in (secret(), bearer(token("ada")), by_name):
        refused = await call("POST", path, who, json=body)
        assert (refused.status_code, refused.json()["type"]) == (403, "/problems/forbidden")
    assert await workshop.value("SELECT count(*) FROM action_runs") == 0
    assert (await call("POST", path, ADMIN, json=body)).status_code == 202


async def test_in_a_batch_it_is_refused_by_itself(call: Caller, workshop: Workshop) -> None:
    runs = {"runs": [{"action": "tidy"}, {"action": "purge"}]}
    first, second = (await call("POST", "/runs/batch", secret(), json=runs)).json()["items"]
    assert (set(first), second["error"]["type"]) == ({"id"}, "/problems/forbidden")
    items = (await call("POST", "/runs/batch", ADMIN, json=runs)).json()["items"]
    assert [set(item) for item in items] == [{"id"}, {"id"}]


async def test_an_attempt_is_in_the_audit_log(call: Caller, workshop: Workshop) -> None:
    await call("POST", "/runs", secret(), json={"action": "purge"})
    assert await workshop.value("SELECT actor || ' ' || outcome FROM audit_log") == "secret 403"


async def test_this_program_itself_may(call: Caller, workshop: Workshop) -> None:
    await workshop.submit("purge")
    await call("POST", "/runs", secret(), json={"action": "tidy"})
    await workshop.drain()
    assert await workshop.value("SELECT count(*) FROM action_runs WHERE action = 'purge' AND state = 'succeeded'") == 2


def test_what_deletes_everybody_s_runs_is_for_administrators() -> None:
    assert tasks.action["prune_ledger"].scope == "admin"


def test_a_scope_that_is_none_is_refused_where_it_is_written(workshop: Workshop) -> None:
    actions: Actions = workshop.action
    with pytest.raises(ValueError, match="'runs:write' or 'admin'"):
        actions("charge", scope="everybody")  # pyright: ignore[reportArgumentType]
