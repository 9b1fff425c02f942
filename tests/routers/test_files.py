"""Files over HTTP: read by whoever has a signed URL, and by nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from tests.support.callers import Caller, guarded
from tests.support.workshop import Workshop

from app.main import create_app
from app.outbound.storage.client import Storage


@pytest.fixture
async def app(workshop: Workshop, tmp_path: Path) -> AsyncIterator[FastAPI]:
    app = create_app(guarded(workshop.settings, data_dir=tmp_path), workshop.queue, workshop.action)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def storage(app: FastAPI) -> Storage:
    return app.state.services.storage


async def test_a_signed_url_gives_the_file_to_anybody_and_lets_it_do_nothing(app: FastAPI, storage: Storage) -> None:
    await storage.put("some/page.html", b"<script>alert(1)</script>", "text/html")
    answer = await Caller(app)("GET", await storage.signed_url("some/page.html", seconds=60))
    assert (answer.status_code, answer.content) == (200, b"<script>alert(1)</script>")
    assert answer.headers["content-disposition"] == 'attachment; filename="page.html"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"


async def test_whatever_is_wrong_looks_the_same(app: FastAPI, storage: Storage, tmp_path: Path) -> None:
    await storage.put("there", b"x", "text/plain")
    (tmp_path / "files/link").symlink_to("/etc/hostname")
    (tmp_path / "files/folder").mkdir()
    url = await storage.signed_url("there", seconds=60)
    query = url.partition("?")[2]
    asked = [
        "/files/there",
        "/files/there?expires=1&signature=x",
        url[:-1],
        await storage.signed_url("there", seconds=-1),
        f"/files/other?{query}",
        f"/files/../there?{query}",
        f"/files/%2e%2e/there?{query}",
        f"/files//etc/hostname?{query}",
        await storage.signed_url("missing", seconds=60),
        await storage.signed_url("link", seconds=60),
        await storage.signed_url("folder", seconds=60),
    ]
    call = Caller(app)
    told = []
    for path in asked:
        answer = await call("GET", path)
        assert answer.status_code == 404, path
        told.append({**answer.json(), "instance": None})
    assert [one for one in told if one != told[0] and one["type"] == told[0]["type"]] == []
    assert (await call("GET", url)).status_code == 200
