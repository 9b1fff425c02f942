"""Where nobody needs a credential, a web page that somebody has open must not act in his place."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from tests.support.callers import Caller
from tests.support.serving import open_api
from tests.support.workshop import Workshop

PAUSE = "/queues/default/pause"
OTHER = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        # A proxy in between has changed the Host.
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost:5173"}, 200),
        (OTHER, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:8000"}, 403),
        ({"sec-fetch-site": ""}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "http://evil.example/127.0.0.1:8000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
    ],
)
async def test_a_change_is_asked_for_by_a_page_of_our_own_or_by_no_page(
    api: httpx2.AsyncClient, headers: dict[str, str], status: int
) -> None:
    answer = await api.post(PAUSE, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["type"] == "/problems/forbidden"
        assert (await api.get("/queues")).json()["items"] == []


async def test_a_page_of_another_site_stores_no_file(workshop: Workshop, tmp_path: Path) -> None:
    settings = workshop.settings.model_copy(update={"data_dir": tmp_path})
    async with open_api(workshop, settings) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            sent = await client.post("/files", content=b"x", headers=OTHER | {"content-type": "text/plain"})
    assert sent.status_code == 403
    assert not (tmp_path / "files").exists()


async def test_a_link_on_another_site_leads_here(api: httpx2.AsyncClient) -> None:
    assert (await api.get("/runs", headers=OTHER | {"sec-fetch-mode": "navigate"})).status_code == 200


async def test_whoever_has_a_credential_needs_no_site(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    @workshop.action()
    async def echo() -> None: ...

    secret = {"x-roadmap-ai-secret": "dev-secret"}
    assert (await api.post("/runs", json={"action": "echo"}, headers=OTHER | secret)).status_code == 202


async def test_it_is_so_where_everybody_may_call(workshop: Workshop) -> None:
    async with open_api(workshop, workshop.settings.model_copy(update={"allow_anonymous": True})) as app:
        call = Caller(app)
        assert (await call("POST", PAUSE, OTHER)).status_code == 403
        assert (await call("POST", PAUSE, {"origin": "https://api.example"})).status_code == 200
