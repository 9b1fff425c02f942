"""Two principals who do not see each other's runs, on any route about runs; and one who sees all."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx2
import pytest
from fastapi import Request
from tests.support.workshop import Workshop

from app.access.principal import EVERYTHING, Principal
from app.routers import security
from app.runs import bulk
from app.runs.bulk import Hands
from app.runs.context import Run
from app.runs.intake import Intake
from app.runs.schemas import BulkDone, BulkRuns

BODY = {"action": "echo", "params": {"message": "hi"}, "tags": ["t"]}
ADA, BOB, ROOT = ({"x-test-owner": name} for name in ("ada", "bob", ""))


@pytest.fixture(autouse=True)
def owners(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def identify(request: Request) -> Principal:
        name = request.headers["x-test-owner"]
        return Principal(f"test:{name}", name or None, EVERYTHING)

    monkeypatch.setattr(security, "identify", identify)

    @workshop.action()
    async def echo(message: str) -> str:
        return message

    @workshop.action("bulk_runs")
    async def bulk_runs(run: Run, asked: BulkRuns) -> BulkDone:
        async with contextlib.aclosing(Intake(workshop.engine, timeout=5)) as intake:
            hands = Hands(workshop.engine, workshop.queue.job_manager, workshop.action, intake)
            return await bulk.perform(run, asked, hands)


async def submit(api: httpx2.AsyncClient, who: dict[str, str], **more: Any) -> dict[str, Any]:
    return (await api.post("/runs", json=BODY | more, headers=who)).json()


async def test_a_total_counts_one_s_own_runs(api: httpx2.AsyncClient) -> None:
    for who in (ADA, ADA, BOB):
        await submit(api, who)
    for who, total in ((ADA, 2), (BOB, 1), (ROOT, 3)):
        for query in ("", "&tag=t", "&state=queued"):
            page = (await api.get(f"/runs?count=estimated{query}", headers=who)).json()
            assert page["total_estimated"] == total


async def test_another_s_run_is_the_404_of_one_that_is_not_there(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    hers = await submit(api, ADA)
    never = hers["id"][:-1] + ("0" if hers["id"][-1] != "0" else "1")
    for method, path in (
        ("GET", ""),
        ("GET", "/result"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("POST", "/replay"),
        ("POST", "/signals/approved"),
    ):
        theirs = await api.request(method, f"/runs/{hers['id']}{path}", headers=BOB)
        nobodys = await api.request(method, f"/runs/{never}{path}", headers=BOB)
        assert (theirs.status_code, theirs.json() | {"instance": ""}) == (404, nobodys.json() | {"instance": ""}), path
    assert (await workshop.get(hers["id"])).state == "queued"
    assert (await api.get(f"/runs/{hers['id']}", headers=ROOT)).status_code == 200


async def test_another_s_old_result_is_gone_like_one_that_never_was(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    await submit(api, ADA)
    await workshop.execute("UPDATE action_runs SET id = 'run_20200101T000000Z_00000001'")
    theirs, nobodys = [(await api.get(f"/runs/run_20200101T000000Z_0000000{n}/result", headers=BOB)) for n in (1, 2)]
    assert (theirs.status_code, theirs.json() | {"instance": ""}) == (410, nobodys.json() | {"instance": ""})


@pytest.mark.parametrize("query", ["", "state=queued", "action=echo", "tag=t", "queue=default", "q=hi", "state=failed"])
async def test_a_list_has_one_s_own(api: httpx2.AsyncClient, query: str) -> None:
    hers, his = await submit(api, ADA), await submit(api, BOB)

    async def listed(who: dict[str, str]) -> list[str]:
        return [run["id"] for run in (await api.get(f"/runs?{query}", headers=who)).json()["items"]]

    found = query != "state=failed"
    assert (await listed(ADA), await listed(BOB)) == ([hers["id"]] * found, [his["id"]] * found)
    assert await listed(ROOT) == [his["id"], hers["id"]] * found


async def test_keys_are_one_s_own(api: httpx2.AsyncClient) -> None:
    key = {"idempotency-key": "k"}
    hers, his = await submit(api, ADA | key), await submit(api, BOB | key)
    assert hers["id"] != his["id"]
    unique = {"unique": {"key": "u", "on_conflict": "reject"}}
    assert "id" in await submit(api, ADA, **unique)
    assert "id" in await submit(api, BOB, **unique)
    assert (await submit(api, BOB, **unique))["type"] == "/problems/not-unique"


async def test_who_waits_under_a_queueing_lock_is_named_to_its_owner_only(api: httpx2.AsyncClient) -> None:
    hers = await submit(api, ADA, queueing_lock="one")
    for who, named in ((ADA, hers["id"]), (BOB, None), (ROOT, hers["id"])):
        refused = await submit(api, who, queueing_lock="one")
        assert (refused["type"], refused.get("run_id")) == ("/problems/already-queued", named)


async def test_a_bulk_run_changes_one_s_own_whatever_it_names(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    hers, his = await submit(api, ADA), await submit(api, BOB)
    for which in ({"ids": [hers["id"], his["id"]]}, {"filter": {}}):
        asked = {"op": "cancel", **which}
        dry = await api.post("/runs/bulk", json=asked | {"dry_run": True}, headers=BOB)
        assert dry.json() == {"matched": 1}
    # As anybody may submit it.
    await api.post("/runs", json={"action": "bulk_runs", "params": asked, "priority": 9}, headers=BOB)
    await workshop.drain(concurrency=1)
    assert (await workshop.get(his["id"])).state == "cancelled"
    assert (await workshop.get(hers["id"])).state == "succeeded"


async def test_a_replay_belongs_to_whom_the_run_belonged(api: httpx2.AsyncClient) -> None:
    hers = await submit(api, ADA)
    again = (await api.post(f"/runs/{hers['id']}/replay", headers=ROOT)).json()
    assert (await api.get(f"/runs/{again['id']}", headers=ADA)).status_code == 200
    assert (await api.get(f"/runs/{again['id']}", headers=BOB)).status_code == 404
