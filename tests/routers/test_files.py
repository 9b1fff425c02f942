"""Files over HTTP: sent by who may write, read by whoever has a signed URL, and by nobody else."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from tests.support.callers import Caller, bearer, guarded, token
from tests.support.serving import open_api
from tests.support.workshop import Workshop

from app.outbound.storage.interface import Storage
from app.routers.services import MOST_UPLOADS


@pytest.fixture
async def app(workshop: Workshop, tmp_path: Path) -> AsyncIterator[FastAPI]:
    async with open_api(workshop, guarded(workshop.settings, data_dir=tmp_path)) as app:
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
        f"/files/%2e%2e/there?{query}",
        f"/files//etc/hostname?{query}",
        f"/files/there%0A?{query}",
        f"/files/a%0Ab?{query}",
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
    assert [one for one in told if one != told[0]] == []
    assert (await call("GET", url)).status_code == 200


async def test_an_upload_gets_a_key_and_a_url_that_gives_it_back(app: FastAPI, workshop: Workshop) -> None:
    call, ada = Caller(app), bearer(token("ada"))
    content = bytes(range(256)) * 5
    made = await call("POST", "/files?name=report.pdf", ada | {"content-type": "Application/PDF; x=y"}, content=content)
    assert made.status_code == 201
    told = made.json()
    assert (told["bytes"], told["content_type"]) == (len(content), "application/pdf")
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["key"].startswith("uploads/")
    assert told["key"].endswith("/report.pdf")
    assert made.headers["location"] == told["url"]
    assert (await call("GET", told["url"])).content == content
    # The log has the name, and not the signature.
    assert await workshop.value("SELECT object_id FROM audit_log WHERE route = 'POST /files'") == "report.pdf"


async def test_two_uploads_of_one_name_are_two_files(app: FastAPI) -> None:
    call, ada = Caller(app), bearer(token("ada"))
    keys = {(await call("POST", "/files?name=a", ada, content=b"x")).json()["key"] for _ in range(2)}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("query", "headers", "content", "status"),
    [
        ("", {}, b"", 422),
        ("?name=../x", {}, b"x", 422),
        ("?name=.hidden", {}, b"x", 422),
        ("?name=a%00", {}, b"x", 422),
        ("?folder=a", {}, b"x", 422),
        ("", {"content-type": "nonsense"}, b"x", 415),
        ("", {"content-encoding": "gzip"}, b"x", 415),
        ("", {}, bytes(20 * 1024 * 1024 + 1), 413),
    ],
    ids=["empty", "traversal", "hidden", "NUL", "unknown parameter", "no type", "compressed", "too large"],
)
async def test_a_wrong_upload_is_told_and_not_stored(
    app: FastAPI, tmp_path: Path, query: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    answer = await Caller(app)("POST", f"/files{query}", bearer(token("ada")) | headers, content=content)
    assert answer.status_code == status
    assert not (tmp_path / "files").exists()


async def test_an_upload_without_an_end_is_left_when_it_is_too_large(app: FastAPI) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield bytes(1024 * 1024)

    answer = await Caller(app)("POST", "/files", bearer(token("ada")), content=endless())
    assert (answer.status_code, read) == (413, 21)


async def test_more_uploads_than_fit_into_memory_are_told_to_come_again(app: FastAPI) -> None:
    call, ada, begun, go = Caller(app), bearer(token("ada")), asyncio.Semaphore(0), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.release()
        await go.wait()
        yield b"x"

    async with asyncio.TaskGroup() as senders:
        sent = [senders.create_task(call("POST", "/files", ada, content=slow())) for _ in range(MOST_UPLOADS)]
        for _ in sent:
            await begun.acquire()
        refused = await call("POST", "/files", ada, content=b"x")
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/too-busy")
        assert int(refused.headers["retry-after"]) >= 1
        go.set()
    assert {task.result().status_code for task in sent} == {201}
    assert (await call("POST", "/files", ada, content=b"x")).status_code == 201


async def test_a_storage_that_cannot_take_it_is_503_and_says_why(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "files").write_text("not a folder")
    async with open_api(workshop, guarded(workshop.settings, data_dir=tmp_path)) as app:
        answer = await Caller(app)("POST", "/files", bearer(token("ada")), content=b"x")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/storage-unavailable")
