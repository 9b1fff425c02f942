"""A run reads the files of its owner: those of others are not there."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from tests.support.callers import Caller, Headers, bearer, guarded, key, secret, token
from tests.support.serving import open_api
from tests.support.workshop import Workshop

from app.access.principal import Scope
from app.config import Settings
from app.domain.files.processing import ProcessedFile, process
from app.domain.mail.message import FileKey, Mail, MailSent, send_mail
from app.runs.context import Run


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"data_dir": tmp_path})


@pytest.fixture
async def app(workshop: Workshop) -> AsyncIterator[FastAPI]:
    @workshop.action()
    async def process_file(run: Run, key: FileKey) -> ProcessedFile:
        return await process(run, run.clients.storage, key)

    @workshop.action()
    async def send_email(run: Run, mail: Mail) -> MailSent:
        return await send_mail(run, run.id, mail, run.clients.mailer, run.clients.storage)

    async with open_api(workshop, guarded(workshop.settings)) as app:
        yield app


def uses(key: str) -> list[tuple[str, dict[str, Any]]]:
    """Every action that reads a stored file."""
    mail = {"to": ["ada@example.com"], "subject": "x", "text": "y", "attachments": [key]}
    return [("process_file", {"key": key}), ("send_email", mail)]


async def ended(workshop: Workshop, call: Caller, who: Headers, key: str) -> list[Any]:
    """How a run of each of them has ended."""
    runs = [
        (await call("POST", "/runs", who, json={"action": action, "params": params})).json()["id"]
        for action, params in uses(key)
    ]
    await workshop.drain()
    return [(run.state, run.error and run.error["detail"]) for run in [await workshop.get(each) for each in runs]]


async def test_the_file_of_another_is_not_there_for_any_action(app: FastAPI, workshop: Workshop) -> None:
    call, ada, bob = Caller(app), bearer(token("ada")), bearer(token("bob"))
    hers = (await call("POST", "/files?name=a.txt", ada, content=b"hello")).json()["key"]
    missing = hers.replace("a.txt", "b.txt")
    assert await ended(workshop, call, ada, hers) == [("succeeded", None)] * 2
    for who, key_ in ((bob, hers), (secret(), hers), (bob, hers.replace("uploads", "Uploads")), (ada, missing)):
        told = f"There is no file '{key_}'. Upload it with POST /files, and give the key of the answer."
        assert await ended(workshop, call, who, key_) == [("failed", told)] * 2


async def test_whose_runs_are_nobodys_sees_the_files_of_all(app: FastAPI, workshop: Workshop) -> None:
    call, root = Caller(app), bearer(await key(workshop.engine, None, Scope.ADMIN))
    for who in (bearer(token("ada")), root):
        uploaded = (await call("POST", "/files?name=a.txt", who, content=b"hello")).json()["key"]
        assert await ended(workshop, call, root, uploaded) == [("succeeded", None)] * 2


async def test_what_a_run_makes_of_a_file_is_its_owners_too(app: FastAPI, workshop: Workshop) -> None:
    call, ada, bob = Caller(app), bearer(token("ada")), bearer(token("bob"))
    Image.new("L", (1, 1)).save(dot := io.BytesIO(), "PNG")
    uploaded = (await call("POST", "/files?name=dot.png", ada, content=dot.getvalue())).json()["key"]
    run = (await call("POST", "/runs", ada, json={"action": "process_file", "params": {"key": uploaded}})).json()
    await workshop.drain()
    thumbnail = (await workshop.get(run["id"])).result["image"]["thumbnail"]
    assert await ended(workshop, call, ada, thumbnail) == [("succeeded", None)] * 2
    assert [state for state, _ in await ended(workshop, call, bob, thumbnail)] == ["failed"] * 2
