"""The receiver of docs/how-to/webhooks.md takes what is right, once, and nothing else."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import ModuleType

import httpx2
import pytest

from app.config import ROOT
from app.outbound.webhooks.client import signed_headers

EXAMPLE = ROOT / "examples/webhook_receiver.py"
SECRET = "whsec_" + "c2VjcmV0" * 8
OLD = "whsec_" + "b2xkb2xk" * 8
BODY = json.dumps({"type": "run.succeeded", "data": {"id": "run_1", "state": "succeeded"}})

Headers = dict[str, str]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("WEBHOOK_DATABASE", ":memory:")
    spec = importlib.util.spec_from_file_location("webhook_receiver", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headers(*secrets: str, ago: timedelta = timedelta()) -> Headers:
    return signed_headers(BODY, event_id="evt_1", secrets=secrets or (SECRET,), now=datetime.now(UTC) - ago)


async def post(example: ModuleType, sent: Headers, body: bytes = BODY.encode()) -> int:
    transport = httpx2.ASGITransport(app=example.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://receiver") as client:
        raw = [(name, value.encode()) for name, value in sent.items()]
        return (await client.post("/hooks", content=body, headers=raw)).status_code


def rows(example: ModuleType) -> list[object]:
    return example.database.execute("SELECT * FROM ended_runs").fetchall()


async def test_an_event_is_taken_once_however_often_it_comes(example: ModuleType) -> None:
    for _ in range(2):
        assert await post(example, headers()) == 200
    assert rows(example) == [("evt_1", "run_1", "succeeded")]


async def test_an_event_signed_with_an_old_and_a_new_secret_is_taken_by_either(example: ModuleType) -> None:
    assert await post(example, headers(OLD, SECRET)) == 200
    assert await post(example, headers(SECRET, OLD)) == 200


def without(name: str) -> Callable[[Headers], Headers]:
    return lambda sent: {each: value for each, value in sent.items() if each != name}


def with_(**changed: str) -> Callable[[Headers], Headers]:
    return lambda sent: sent | {name.replace("_", "-"): value for name, value in changed.items()}


VECTORS: dict[str, Callable[[Headers], Headers]] = {
    "another secret": lambda _: headers(OLD),
    "another id": with_(webhook_id="evt_2"),
    "another time": with_(webhook_timestamp=str(int(datetime.now(UTC).timestamp()) + 5)),
    "ten minutes old": lambda _: headers(ago=timedelta(minutes=10)),
    "of the future": lambda _: headers(ago=-timedelta(minutes=10)),
    "no time at all": with_(webhook_timestamp="now"),
    "without id": without("webhook-id"),
    "without time": without("webhook-timestamp"),
    "without signature": without("webhook-signature"),
    "garbage": with_(webhook_signature="garbage"),
    "too many parts": with_(webhook_signature="v1,a,b"),
    "not ASCII": with_(webhook_signature="v1,é"),
    "another version": lambda sent: sent | {"webhook-signature": sent["webhook-signature"].replace("v1", "v2")},
}


@pytest.mark.parametrize("vector", VECTORS)
async def test_what_is_not_right_is_refused(example: ModuleType, vector: str) -> None:
    assert await post(example, VECTORS[vector](headers())) == 401
    assert rows(example) == []


@pytest.mark.parametrize("body", [BODY.replace("run_1", "run_2").encode(), b"\xff", b""])
async def test_a_body_that_was_not_signed_is_refused(example: ModuleType, body: bytes) -> None:
    assert await post(example, headers(), body) == 401
    assert rows(example) == []


def test_the_how_to_shows_the_example_as_it_is() -> None:
    code = EXAMPLE.read_text().partition("\n\n")[2].strip()
    assert code in (ROOT / "docs/how-to/webhooks.md").read_text()
