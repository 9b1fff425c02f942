"""Files are kept, read back and refused alike in a folder, in S3 and at Bunny."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError
from tests.support.buckets import BUCKET, BUNNY_KEY, bunny, s3_server
from tests.support.processes import free_port

from app.config import Settings
from app.errors import RateLimited, Rejected, Unavailable
from app.outbound.storage.client import open_storage
from app.outbound.storage.interface import Storage
from app.outbound.storage.objects import FolderStorage
from app.outbound.stubs import RETRY_AFTER_SECONDS, Stubs

MB = 1_000_000


def s3(url: str, **more: Any) -> dict[str, Any]:
    return {
        "storage_provider": "s3",
        "storage_endpoint_url": url,
        "storage_bucket": BUCKET,
        "storage_access_key": "key",
        "storage_secret_key": "secret",
    } | more


def at_bunny(url: str, **more: Any) -> dict[str, Any]:
    return {
        "storage_provider": "bunny",
        "bunny_zone": "zone",
        "bunny_api_key": BUNNY_KEY,
        "bunny_storage_endpoint": url,
        "bunny_cdn_base_url": "https://zone.b-cdn.net",
        "bunny_token_auth_key": "token key",
    } | more


def opened(folder: Path, **settings: Any) -> contextlib.AbstractAsyncContextManager[Storage]:
    given = {"environment": "test", "data_dir": folder} | settings
    return open_storage(Settings(_env_file=None, **given))


@pytest.fixture(params=["local", "s3", "bunny"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with contextlib.AsyncExitStack() as stack:
        settings: dict[str, Any] = {}
        if request.param == "s3":
            settings = s3(stack.enter_context(s3_server()))
        elif request.param == "bunny":
            stubs = await stack.enter_async_context(contextlib.aclosing(Stubs({"bunny": bunny()})))
            settings = at_bunny(stubs.url("bunny"))
        yield await stack.enter_async_context(opened(tmp_path, **settings))


async def test_a_file_is_kept_replaced_and_deleted(storage: Storage) -> None:
    await storage.put("a/b-1.txt", b"first", "text/plain")
    await storage.put("a/b-1.txt", b"second \x00\xff", "text/plain")
    assert await storage.get("a/b-1.txt", max_bytes=MB) == b"second \x00\xff"
    await storage.delete("a/b-1.txt")
    await storage.delete("a/b-1.txt")
    with pytest.raises(Rejected, match=r"There is no file 'a/b-1\.txt'"):
        await storage.get("a/b-1.txt", max_bytes=MB)


async def test_a_file_that_is_larger_than_was_asked_for_is_not_read(storage: Storage) -> None:
    await storage.put("large", bytes(1001), "application/octet-stream")
    assert len(await storage.get("large", max_bytes=1001)) == 1001
    with pytest.raises(Rejected, match="more than the 1000 bytes"):
        await storage.get("large", max_bytes=1000)


@pytest.mark.parametrize(
    "key",
    ["", "..", "../x", "a/../x", "a/..", "/etc/passwd", "a//b", "a/", ".hidden", "a/.b", "a\\b", "a b", "a\x00", "é",
     "a%2e%2e/x", "a\n", "C:/x", "x" * 513, "a/" * 300 + "a", "y" * 201],
)  # fmt: skip
async def test_what_is_no_key_is_refused_before_anybody_is_asked(tmp_path: Path, key: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for settings in ({}, s3(nobody), at_bunny(nobody)):
        async with opened(tmp_path, **settings) as storage:
            for call in (
                storage.put(key, b"", "text/plain"),
                storage.get(key, max_bytes=1),
                storage.delete(key),
                storage.signed_url(key, seconds=1),
            ):
                with pytest.raises(Rejected, match="A file's key is"):
                    await call
    assert list(tmp_path.iterdir()) == []


async def test_links_are_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    async with opened(tmp_path / "data") as storage:
        await storage.put("inside", b"x", "text/plain")
        files = tmp_path / "data/files"
        (files / "link").symlink_to(tmp_path / "outside/secret")
        (files / "folder").symlink_to(tmp_path / "outside")
        for key in ("link", "folder/secret"):
            with pytest.raises(Rejected, match="There is no file"):
                await storage.get(key, max_bytes=MB)
            with pytest.raises(Rejected):
                await storage.put(key, b"overwritten", "text/plain")
            with pytest.raises(Rejected):
                await storage.delete(key)
    assert (tmp_path / "outside/secret").read_text() == "secret"
    assert (tmp_path / "data/files").stat().st_mode & 0o777 == 0o700


async def test_a_folder_that_is_a_link_itself_is_the_owner_s_choice(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    async with opened(tmp_path / "data") as storage:
        await storage.put("a", b"x", "text/plain")
        assert await storage.get("a", max_bytes=1) == b"x"


async def test_an_s3_file_is_read_by_its_signed_url_with_its_type(tmp_path: Path) -> None:
    with s3_server() as url:
        async with opened(tmp_path, **s3(url)) as storage, httpx2.AsyncClient(trust_env=False) as http:
            await storage.put("a/b.html", b"<p>hello", "text/html; charset=utf-8")
            answer = await http.get(await storage.signed_url("a/b.html", seconds=60))
    assert (answer.status_code, answer.content) == (200, b"<p>hello")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


async def test_a_bunny_url_is_signed_as_its_pull_zone_checks_it(tmp_path: Path) -> None:
    async with opened(tmp_path, **at_bunny("http://127.0.0.1:1")) as storage:
        url = httpx2.URL(await storage.signed_url("a/b.mp3", seconds=60))
    signed = f"token key/a/b.mp3{url.params['expires']}".encode()
    expected = base64.b64encode(hashlib.sha256(signed).digest()).decode()
    expected = expected.replace("+", "-").replace("/", "_").replace("=", "")
    assert (url.host, url.path, url.params["token"]) == ("zone.b-cdn.net", "/a/b.mp3", expected)


async def test_a_local_url_is_right_for_its_file_and_its_time_only(tmp_path: Path) -> None:
    async with opened(tmp_path) as storage, opened(tmp_path) as another_process:
        assert isinstance(storage, FolderStorage)
        assert isinstance(another_process, FolderStorage)
        signed = dict(httpx2.URL(await storage.signed_url("a", seconds=60)).params)
        over = dict(httpx2.URL(await storage.signed_url("a", seconds=0)).params)
        assert another_process.is_signed("a", **signed)
        wrong = [
            ("b", signed),
            ("a", over),
            ("a", signed | {"expires": str(int(signed["expires"]) + 1)}),
            ("a", signed | {"signature": signed["signature"][:-1]}),
            ("a", signed | {"signature": "é"}),
            ("a", {"expires": "", "signature": ""}),
            ("a", signed | {"expires": "9" * 5000}),
        ]
        assert [given for given in wrong if storage.is_signed(given[0], **given[1])] == []
    assert (tmp_path / "storage-signing-key").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["storage-signing-key"]


async def test_production_signs_with_a_key_that_was_given_or_not_at_all(tmp_path: Path) -> None:
    async with opened(tmp_path, environment="production") as storage:
        with pytest.raises(Rejected, match="Set STORAGE_SIGNING_KEY"):
            await storage.signed_url("a", seconds=1)
    async with opened(tmp_path, environment="production", storage_signing_key="k" * 32) as storage:
        assert (await storage.signed_url("a", seconds=1)).startswith("/files/a?expires=")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("trouble", "error"), [("429", RateLimited), ("500", Unavailable), ("slow", Unavailable)])
async def test_bunny_s_trouble_says_whether_to_try_again(
    trouble: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.outbound.storage.client.TIMEOUT", httpx2.Timeout(0.3))
    async with (
        contextlib.aclosing(Stubs({"bunny": bunny()})) as stubs,
        opened(tmp_path, **at_bunny(stubs.url("bunny"))) as storage,
    ):
        with pytest.raises(error) as caught:
            await storage.put("a", f"[stub:{trouble}]".encode(), "text/plain")
    assert type(caught.value) is error
    assert getattr(caught.value, "retry_after", None) == (RETRY_AFTER_SECONDS if trouble == "429" else None)


async def test_wrong_keys_and_nobody_there_are_told_apart(tmp_path: Path) -> None:
    async with (
        contextlib.aclosing(Stubs({"bunny": bunny()})) as stubs,
        opened(tmp_path, **at_bunny(stubs.url("bunny"), bunny_api_key="wrong")) as storage,
    ):
        with pytest.raises(Rejected, match="BUNNY_API_KEY"):
            await storage.get("a", max_bytes=1)
    nobody = f"http://127.0.0.1:{free_port()}"
    for settings in (s3(nobody), at_bunny(nobody)):
        async with opened(tmp_path, **settings) as storage:
            with pytest.raises(Unavailable):
                await storage.get("a", max_bytes=1)


def test_a_storage_without_what_it_needs_is_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match="STORAGE_PROVIDER=s3 needs STORAGE_BUCKET"):
        Settings(_env_file=None, storage_provider="s3")
    with pytest.raises(ValidationError, match="needs BUNNY_ZONE, BUNNY_API_KEY, BUNNY_CDN_BASE_URL, BUNNY_TOKEN"):
        Settings(_env_file=None, storage_provider="bunny")
