"""A file is uploaded, looked at and mailed: over HTTP, by real processes, with a real mail server and a real S3 API."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.buckets import BUCKET, s3_server
from tests.support.eventually import eventually
from tests.support.gates import BEFORE_THE_END, before_step, gate
from tests.support.mailbox import Mailbox, mailbox
from tests.support.processes import api_process, worker_process

from app.config import Settings


@pytest.mark.parametrize("provider", ["local", "s3"])
async def test_an_image_is_uploaded_processed_and_its_thumbnail_mailed(
    settings: Settings, tmp_path: Path, provider: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        box = stack.enter_context(mailbox())
        given = {"DATA_DIR": str(tmp_path), "SMTP_URL": box.url, "MAIL_FROM": "us@example.com"}
        if provider == "s3":
            given |= {
                "STORAGE_PROVIDER": "s3",
                "STORAGE_ENDPOINT_URL": stack.enter_context(s3_server()),
                "STORAGE_BUCKET": BUCKET,
                "STORAGE_ACCESS_KEY": "key",
                "STORAGE_SECRET_KEY": "secret",
            }
        log = tmp_path / "log"
        url, _ = await stack.enter_async_context(api_process(settings, log, **given))
        stack.enter_context(worker_process(settings, log, **given))
        http = await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False))

        buffer = io.BytesIO()
        Image.new("RGB", (800, 400), "navy").save(buffer, "JPEG")
        uploaded = await http.post(
            "/files?name=photo.jpg", content=buffer.getvalue(), headers={"Content-Type": "image/jpeg"}
        )
        assert uploaded.status_code == 201
        file = uploaded.json()
        assert (await http.get(file["url"])).content == buffer.getvalue()

        params = {"action": "process_file", "params": {"key": file["key"]}}
        run = (await http.post("/runs", json=params, headers={"Prefer": "wait=30"})).json()
        assert run["state"] == "succeeded", run
        assert (run["result"]["sha256"], run["result"]["content_type"]) == (file["sha256"], "image/jpeg")
        thumbnail = run["result"]["image"]["thumbnail"]

        mail = {
            "task": "send_email", "to": ["ada@example.com"], "subject": "Your photo", "text": "Small.",
            "html": "<p>Small.", "attachments": [thumbnail],
        }  # fmt: skip
        job = (await http.post("/jobs", json={"payload": mail})).json()["job_id"]

        async def completed() -> dict[str, Any] | None:
            told = (await http.get(f"/jobs/{job}")).json()
            assert told["status"] != "failed", told
            return told if told["status"] == "completed" else None

        await eventually(completed)
        [got] = box.got
        assert (got["Subject"], got["Message-ID"]) == ("Your photo", f"<{job}@example.com>")
        [attached] = got.iter_attachments()
        assert Image.open(io.BytesIO(attached.get_content())).size == (256, 128)


async def test_a_mail_with_a_file_that_is_not_there_fails_and_says_what_to_do(
    settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    given = {"DATA_DIR": str(tmp_path)}
    async with api_process(settings, log, **given) as (url, _), httpx2.AsyncClient(base_url=url, timeout=60) as http:
        mail = {"to": ["ada@example.com"], "subject": "x", "text": "y", "attachments": ["missing"]}
        wrong = await http.post("/runs", json={"action": "send_email", "params": mail | {"subject": "a\r\nBcc: b@c"}})
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/params/subject")
        with worker_process(settings, log, **given):
            asked = {"action": "send_email", "params": mail}
            run = (await http.post("/runs", json=asked, headers={"Prefer": "wait=30"})).json()
    assert (run["state"], run["attempt"]) == ("failed", 1)
    assert "Upload it with POST /files" in run["error"]["detail"]
    assert not (tmp_path / "outbox").exists()


@dataclass(frozen=True)
class Post:
    """A run of `send_email`, its mail server, and workers to kill."""

    settings: Settings
    engine: AsyncEngine
    box: Mailbox
    http: httpx2.AsyncClient
    log: Path

    def worker(self) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        return worker_process(self.settings, self.log, DATA_DIR=str(self.log.parent), SMTP_URL=self.box.url)

    async def kill_a_worker(self, when: Callable[[], Awaitable[Any]]) -> None:
        with self.worker() as worker:
            await when()
            worker.kill()
            worker.wait()

    async def sent(self) -> list[str]:
        """The Message-IDs that have arrived when the run has succeeded, at its second attempt."""
        with self.worker():

            async def ended() -> dict[str, Any] | None:
                [run] = (await self.http.get("/runs")).json()["items"]
                return run if run["state"] in ("succeeded", "failed") else None

            run = await eventually(ended, within=60)
        assert run is not None
        assert (run["state"], run["attempt"]) == ("succeeded", 2)
        assert run["result"]["message_id"] == f"<{run['id']}@localhost>"
        return [mail["Message-ID"] for mail in self.box.got]


@pytest.fixture
async def post(settings: Settings, engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Post]:
    log = tmp_path / "log"
    with mailbox() as box:
        async with (
            api_process(settings, log, DATA_DIR=str(tmp_path)) as (url, _),
            httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as http,
        ):
            mail = {"to": ["ada@example.com"], "subject": "x", "text": "y"}
            await http.post("/runs", json={"action": "send_email", "params": mail})
            yield Post(settings, engine, box, http, log)


async def test_a_worker_killed_before_the_mail_was_taken_sends_it_once(post: Post) -> None:
    async def asked() -> bool:
        return post.box.asked > 0

    post.box.is_silent = True
    await post.kill_a_worker(lambda: eventually(asked, within=60))
    post.box.is_silent = False
    assert len(await post.sent()) == 1


async def test_a_worker_killed_before_the_step_is_stored_sends_it_twice_with_one_message_id(post: Post) -> None:
    async with gate(post.engine, before_step("send")) as reached:
        await post.kill_a_worker(reached)
    assert len(post.box.got) == 1
    first, second = await post.sent()
    assert first == second


async def test_a_worker_killed_before_the_run_has_ended_sends_it_once(post: Post) -> None:
    async with gate(post.engine, BEFORE_THE_END) as reached:
        await post.kill_a_worker(reached)
    assert len(await post.sent()) == 1
