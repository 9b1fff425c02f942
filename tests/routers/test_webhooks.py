"""Webhook endpoints over HTTP."""

from __future__ import annotations

import asyncio
import base64
import dataclasses

import httpx2
import pytest
from fastapi import Request
from pydantic import SecretStr
from tests.support.serving import open_api
from tests.support.workshop import Workshop

from app.access.principal import EVERYTHING, SECRET, Principal
from app.routers import security

URL = "http://127.0.0.1:9/hooks"
KEY = SecretStr(base64.urlsafe_b64encode(bytes(32)).decode())


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says a name in `X-Owner` is that."""
    identify = security.identify

    async def by_header(request: Request) -> Principal:
        owner = request.headers.get("X-Owner")
        return await identify(request) if owner is None else Principal(f"test:{owner}", owner, EVERYTHING)

    monkeypatch.setattr(security, "identify", by_header)


async def make(api: httpx2.AsyncClient, owner: str | None = None, **more: object) -> dict[str, str]:
    headers = {} if owner is None else {"X-Owner": owner}
    answer = await api.post("/webhooks", json={"url": URL, **more}, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/webhooks/{answer.json()['id']}"
    return answer.json()


async def test_a_secret_is_shown_when_it_is_made_and_never_again(api: httpx2.AsyncClient) -> None:
    made = await make(api, description="mine")
    assert made["secret"].startswith("whsec_")
    assert made["event_types"] == ["run.cancelled", "run.failed", "run.succeeded"]
    found = await api.get(f"/webhooks/{made['id']}")
    assert found.json() == {name: value for name, value in made.items() if name != "secret"}
    rotated = (await api.post(f"/webhooks/{made['id']}/rotate-secret")).json()
    assert rotated["secret"] not in (made["secret"], None)
    listed = await api.get("/webhooks")
    for secret in (made["secret"], rotated["secret"]):
        assert secret not in listed.text


async def test_what_is_deleted_is_gone(api: httpx2.AsyncClient) -> None:
    made = await make(api)
    assert (await api.delete(f"/webhooks/{made['id']}")).status_code == 204
    assert (await api.get(f"/webhooks/{made['id']}")).status_code == 404
    assert (await api.delete(f"/webhooks/{made['id']}")).status_code == 404


@pytest.mark.usefixtures("owned")
async def test_another_owner_s_endpoint_is_not_there(api: httpx2.AsyncClient) -> None:
    made = await make(api, "ada")
    missing = await api.get("/webhooks/whe_0000000000000000", headers={"X-Owner": "bob"})
    path = f"/webhooks/{made['id']}"
    for method, at in (
        ("GET", path),
        ("DELETE", path),
        ("POST", f"{path}/rotate-secret"),
        ("POST", f"{path}/enable"),
        ("GET", f"{path}/deliveries"),
        ("POST", f"{path}/deliveries/dlv_0000000000000001/redeliver"),
    ):
        answer = await api.request(method, at, headers={"X-Owner": "bob"})
        assert answer.status_code == 404
        assert {**answer.json(), "instance": ""} == {**missing.json(), "instance": ""}
    assert (await api.get("/webhooks", headers={"X-Owner": "bob"})).json() == {"items": []}
    assert [each["id"] for each in (await api.get("/webhooks")).json()["items"]] == [made["id"]]


@pytest.mark.usefixtures("owned")
async def test_a_run_may_name_an_endpoint_of_its_owner_and_no_other(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    @workshop.action()
    async def echo() -> None: ...

    made = await make(api, "ada", event_types=[])
    run = {"action": "echo", "webhook": made["id"]}
    assert (await api.post("/runs", json=run, headers={"X-Owner": "ada"})).status_code == 202
    for headers in ({"X-Owner": "bob"}, {}):
        refused = await api.post("/runs", json=run, headers=headers)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "/webhook"
    batch = {"runs": [run, {**run, "webhook": "whe_none"}, {**run, "webhook": 7}]}
    items = (await api.post("/runs/batch", json=batch, headers={"X-Owner": "ada"})).json()["items"]
    assert [list(item) for item in items] == [["id"], ["error"], ["error"]]
    assert items[1]["error"]["errors"][0]["pointer"] == "/runs/1/webhook"
    await workshop.drain()
    assert await workshop.value("SELECT count(*) FROM webhook_deliveries") == 2


async def test_a_replay_tells_the_same_endpoint_as_long_as_it_is_there(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    @workshop.action()
    async def echo() -> None: ...

    made, ada = await make(api, "ada", event_types=[]), {"X-Owner": "ada"}
    old = (await api.post("/runs", json={"action": "echo", "webhook": made["id"]}, headers=ada)).json()
    assert old["webhook"] == made["id"]
    new = (await api.post(old["links"]["replay"], headers=ada)).json()
    assert new["webhook"] == made["id"]
    await workshop.drain()
    assert await workshop.value("SELECT count(*) FROM webhook_deliveries") == 2
    await api.delete(f"/webhooks/{made['id']}", headers=ada)
    assert (await api.post(old["links"]["replay"], headers=ada)).status_code == 202


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:1",
        "http://user:pw@example.com/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0.0.0.0/",
        "http://2130706433/",
        "http://exa\r\nmple.com/",
        "http://a\x00b/",
        "nonsense",
        f"https://example.com/{'x' * 2048}",
    ],
)
async def test_a_url_that_may_not_be_sent_to_is_refused_where_it_is_given(api: httpx2.AsyncClient, url: str) -> None:
    refused = await api.post("/webhooks", json={"url": url})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/url"
    assert "pw" not in refused.text


@pytest.mark.parametrize(
    "url", ["http://example.com/", "https://127.0.0.1/", "https://10.0.0.1/", "https://[64:ff9b::7f00:1]/"]
)
async def test_in_production_only_https_to_public_addresses_is_allowed(workshop: Workshop, url: str) -> None:
    settings = workshop.settings.model_copy(update={"environment": "production", "webhook_key": KEY})
    async with open_api(workshop, settings) as app:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as api:
            assert (await api.post("/webhooks", json={"url": url})).status_code == 422
            assert (await api.post("/webhooks", json={"url": "https://example.com/"})).status_code == 201


async def test_in_production_no_secret_is_stored_as_it_is(workshop: Workshop) -> None:
    for given, status in ((None, 503), (KEY, 201)):
        settings = workshop.settings.model_copy(update={"environment": "production", "webhook_key": given})
        async with open_api(workshop, settings) as app:
            transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as api:
                answer = await api.post("/webhooks", json={"url": "https://example.com/"})
        assert answer.status_code == status
        if given is None:
            assert answer.json()["type"] == "/problems/webhooks-unavailable"
            assert "WEBHOOK_KEY" in answer.json()["detail"]
            assert await workshop.value("SELECT count(*) FROM webhook_endpoints") == 0
    assert "whsec_" not in await workshop.value("SELECT secret FROM webhook_endpoints")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": URL, "event_types": ["run.started"]},
        {"url": URL, "secret": "whsec_AAAA"},
        {"url": URL, "owner": "bob"},
        {"url": URL, "description": "a\x00b"},
        {"url": 7},
    ],
)
async def test_what_does_not_fit_is_refused(api: httpx2.AsyncClient, body: object) -> None:
    assert (await api.post("/webhooks", json=body)).status_code == 422
    assert (await api.get("/webhooks")).json() == {"items": []}


@pytest.mark.parametrize("path", ["/webhooks/%00", "/webhooks/whe_1", "/webhooks/%ff"])
async def test_an_id_that_cannot_be_is_not_there(api: httpx2.AsyncClient, path: str) -> None:
    assert (await api.get(path)).status_code in (404, 422)
    assert (await api.post(f"{path}/deliveries/%00/redeliver")).status_code in (404, 422)


async def test_the_twenty_first_endpoint_is_one_too_many(api: httpx2.AsyncClient) -> None:
    for _ in range(20):
        await make(api)
    refused = await api.post("/webhooks", json={"url": URL})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/too-many-webhooks")


async def test_of_thirty_at_once_twenty_are_made(api: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(*(api.post("/webhooks", json={"url": URL}) for _ in range(30)))
    assert sorted(answer.status_code for answer in answers) == [201] * 20 + [409] * 10


async def test_the_log_is_read_page_by_page(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    @workshop.action()
    async def echo() -> None: ...

    made = await make(api)
    for _ in range(5):
        await api.post("/runs", json={"action": "echo"})
    await workshop.drain()
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": 2} if cursor is None else {"limit": 2, "cursor": cursor}
        page = (await api.get(f"/webhooks/{made['id']}/deliveries", params=query)).json()
        seen += [each["id"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert (len(seen), seen) == (5, sorted(set(seen), reverse=True))
    assert (await api.get(f"/webhooks/{made['id']}/deliveries?cursor=x")).status_code == 400


async def test_who_may_only_read_makes_no_endpoints(api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = dataclasses.replace(SECRET, scopes=frozenset({security.Scope.READ}))

    async def as_reader(_: object) -> Principal:
        return reader

    monkeypatch.setattr(security, "identify", as_reader)
    assert (await api.get("/webhooks")).status_code == 200
    assert (await api.post("/webhooks", json={"url": URL})).status_code == 403
