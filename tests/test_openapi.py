"""The contract is committed, holds every operation to the same rules, and grows: what was promised stays promised."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from tests.support.eventually import eventually
from tests.support.processes import api_process, worker_process
from tests.support.workshop import Workshop

from app.config import ROOT
from app.main import create_app
from app.openapi import document
from app.routers.contract import operations, resolved
from app.routers.promises import broken, promises
from app.routers.strict import StrictRoute

COMMITTED = ROOT / "docs/reference/openapi.json"
PROMISES = ROOT / "docs/reference/promises.txt"
CONTRACT: dict[str, Any] = json.loads(document())
SCHEMAS: dict[str, Any] = CONTRACT["components"]["schemas"]
OPERATIONS = [
    pytest.param(operation, id=f"{method.upper()} {path}") for path, method, operation in operations(CONTRACT)
]
EVERY_OPERATION = pytest.mark.parametrize("operation", OPERATIONS)
# What callers and actions fill in as they like; everything else has a shape that can be said.
OPEN = {"params", "payload", "input", "result", "output", "error", "data", "input_schema", "output_schema", "example"}
# They answer 202 about something that the caller knows already, or about many.
NOT_A_NEW_THING = {"cancelRun", "retryRun", "submitRuns", "redeliver", "signalRun"}


def test_the_committed_document_is_the_code_s() -> None:
    assert COMMITTED.read_text() == document(), "Run `make openapi`, and say in CHANGELOG.md what changed."


def test_what_was_promised_is_kept() -> None:
    before, after = set(PROMISES.read_text().splitlines()), promises(CONTRACT)
    assert broken(before, after) == [], (
        "Clients rely on these. Keep them; or, before the first release only, take the lines away from "
        "docs/reference/promises.txt by hand and say so in CHANGELOG.md."
    )
    assert sorted(after - before) == [], "Run `make openapi`: these are new promises."


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in operations(CONTRACT)]
    assert sorted(name for name in names if names.count(name) > 1) == [], "Give these functions other names."


@EVERY_OPERATION
def test_an_answer_that_is_json_has_a_shape(operation: dict[str, Any]) -> None:
    shapes = [
        content["application/json"]["schema"]
        for status, answer in operation["responses"].items()
        if status.startswith("2") and "application/json" in (content := answer.get("content", {}))
    ]
    assert all(shapes), "FastAPI writes {} for what returns a Response: name a response_model, or None."


@EVERY_OPERATION
def test_an_operation_is_described(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    assert re.fullmatch(r"[a-z][A-Za-z0-9]+", name), f"{name}: say operation_id='verbNoun'."
    assert operation.get("description"), f"{name}: give its function a docstring."
    assert operation.get("tags"), f"{name}: give its router tags=['…']."
    described = {tag["name"] for tag in CONTRACT["tags"] if tag["description"]}
    missing = set(operation["tags"]) - described
    assert not missing, f"{name}: add {missing} to TAGS in app/routers/contract.py."


@EVERY_OPERATION
def test_every_error_is_a_problem_that_is_explained(operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        if status >= "400":
            where = f"{operation['operationId']} {status}"
            assert list(response.get("content", {})) == ["application/problem+json"], (
                f"{where}: document it with responses=problems(…), of a class in app/errors."
            )
            assert response["description"], f"{where}: give the problem's class a docstring."


@EVERY_OPERATION
def test_what_any_request_may_be_answered_is_documented(operation: dict[str, Any]) -> None:
    expected = {"400", "408", "414", "422", "431", "500"} | ({"413", "415"} if "requestBody" in operation else set())
    missing = expected - set(operation["responses"])
    assert not missing, f"{operation['operationId']}: give its router route_class=StrictRoute, which adds {missing}."


@EVERY_OPERATION
def test_every_body_has_an_example_that_fits(operation: dict[str, Any]) -> None:
    bodies = [("request", operation.get("requestBody", {}), "json_schema_extra={'examples': […]}")]
    bodies += [(status, response, "json_schema_extra") for status, response in operation["responses"].items()]
    for place, body, remedy in bodies:
        for media_type, media in body.get("content", {}).items():
            where = f"{operation['operationId']} {place}"
            if media_type == "text/event-stream":
                assert media.get("itemSchema"), f"{where}: yield ServerSentEvent, so that items have a schema."
            elif "json" in media_type:
                examples = media.get("examples", {})
                assert examples, f"{where}: give its model an example: model_config = ConfigDict({remedy})."
                for shown in examples.values():
                    check(shown["value"], media["schema"], where)


@EVERY_OPERATION
def test_headers_that_clients_need_are_documented(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    for status, response in operation["responses"].items():
        headers = set(response.get("headers", {}))
        if status in ("201", "202") and name not in NOT_A_NEW_THING:
            assert "Location" in headers, f"{name} {status}: add it to HEADERS in app/routers/contract.py."
        if status == "401":
            assert "WWW-Authenticate" in headers, f"{name} 401: document it with problems(Unauthorized)."
        if status in ("429", "503"):
            assert "Retry-After" in headers, f"{name} {status}: let the problem's class be a NotNow."


@EVERY_OPERATION
def test_answers_say_what_is_in_them(operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        for media_type, media in response.get("content", {}).items():
            if "schema" in media and media_type == "application/json":
                opened = sorted(set(open_fields(media["schema"])) - OPEN)
                assert not opened, f"{operation['operationId']} {status}: give {opened} a model instead of a dict."


@EVERY_OPERATION
def test_credentials_are_documented(operation: dict[str, Any]) -> None:
    schemes = CONTRACT["components"]["securitySchemes"]
    for requirement in operation["security"]:
        assert set(requirement) <= set(schemes)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in schemes), "A scheme's name is an identifier."
    name = operation["operationId"]
    # A file's URL is signed.
    is_public = "health" in operation["tags"] or name == "readFile"
    assert bool(operation["security"]) != is_public, f"{name}: ask for Reads, Writes or Administers."
    assert ("401" in operation["responses"]) != is_public, f"{name}: add problems(Unauthorized, Forbidden)."


def test_every_route_is_strict() -> None:
    routes = [context.original_route for context in iter_route_contexts(create_app().routes) if is_ours(context)]
    lax = [route.path for route in routes if not isinstance(route, StrictRoute)]
    assert lax == [], "Give the router of these route_class=StrictRoute."


def is_ours(context: Any) -> bool:
    return isinstance(context.original_route, APIRoute) and bool(context.include_in_schema)


async def test_every_example_works_as_it_is(workshop: Workshop, tmp_path: Path) -> None:
    """With the real actions, over a socket: what people copy from the documentation is what is sent."""
    with worker_process(workshop.settings, tmp_path / "worker.log"):
        async with (
            api_process(workshop.settings, tmp_path / "api.log", ALLOW_ANONYMOUS="true") as (url, _),
            httpx2.AsyncClient(base_url=url, timeout=30) as client,
        ):
            known = await known_things(client)
            for path, method, operation in operations(CONTRACT):
                for example in examples(operation):
                    # Who has ended is told nothing.
                    named = path.replace("{run_id}/signals", "{waiting_id}/signals").format_map(known)
                    answer = await client.request(method, named, json=known.named_in(example))
                    assert answer.is_success, (operation["operationId"], example, answer.text)
                    assert undocumented_headers(operation, answer) == set(), operation["operationId"]


async def test_what_is_read_has_the_headers_that_are_documented(api: httpx2.AsyncClient, workshop: Workshop) -> None:
    @workshop.action()
    async def echo() -> None: ...

    run, _ = [(await api.post("/runs", json={"action": "echo"})).json()["id"] for _ in range(2)]
    known = defaultdict(lambda: "echo", run_id=run, task_id=run, job_id=run)
    for path, method, operation in operations(CONTRACT):
        if method == "get" and not path.endswith(("/events", "/stream")):
            answer = await api.get(path.format_map(known), headers={"prefer": "wait=0"}, params=PAGE.get(path))
            assert undocumented_headers(operation, answer) == set(), operation["operationId"]


async def test_head_is_answered_like_get_without_the_body_but_for_streams(
    api: httpx2.AsyncClient, workshop: Workshop
) -> None:
    @workshop.action()
    async def echo() -> None: ...

    run = (await api.post("/runs", json={"action": "echo"})).json()["id"]
    known = defaultdict(lambda: "echo", run_id=run, task_id=run, job_id=run)
    for path, method, operation in operations(CONTRACT):
        if method != "get":
            continue
        named, name = path.format_map(known), operation["operationId"]
        head = await api.head(named)
        if path.endswith(("/events", "/stream")):
            assert (head.status_code, head.headers["allow"]) == (405, "GET"), name
        else:
            got = await api.get(named)
            assert (head.status_code, head.content) == (got.status_code, b""), name
            assert set(head.headers) == set(got.headers), name


@EVERY_OPERATION
def test_what_takes_a_key_documents_how_it_says_that_it_was_sent_before(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    takes_key = any(each["name"] == "Idempotency-Key" for each in operation.get("parameters", []))
    if takes_key and name != "submitRuns":  # of a batch, each run says it by its id
        for status in {"200", "201", "202"} & set(operation["responses"]):
            told = operation["responses"][status]["headers"]
            assert "Idempotent-Replayed" in told, f"{name} {status}: add it to HEADERS in app/routers/contract.py."


def examples(operation: dict[str, Any]) -> list[Any]:
    media = operation.get("requestBody", {}).get("content", {}).values()
    return [shown["value"] for each in media for shown in each["examples"].values()]


async def known_things(client: httpx2.AsyncClient) -> Known:
    """A run that has ended and one that waits, and an adventure with what may be decided in it."""
    run = (await client.post("/runs", json={"action": "echo", "params": {"message": "hello"}})).json()

    async def ended() -> bool:
        return (await client.get(f"/runs/{run['id']}")).json()["state"] == "succeeded"

    await eventually(ended, within=60)
    later = {"action": "echo", "params": {"message": "hello"}, "schedule_at": "2999-01-01T00:00:00Z"}
    waiting = (await client.post("/runs", json=later)).json()
    begun = await client.post("/adventures", json={"language": "es", "native_language": "en"})
    place = begun.headers["location"]

    async def choices() -> list[dict[str, str]]:
        return (await client.get(place)).json()["entries"][0]["choices"]

    return Known(
        run_id=run["id"],
        waiting_id=waiting["id"],
        name="echo",
        adventure_id=begun.json()["id"],
        choice_id=(await eventually(choices, within=60))[0]["id"],
    )


class Known(dict[str, str]):
    """What a path's parameters, and what bodies name, may stand for."""

    def named_in(self, example: Any) -> Any:
        """The example, about the choice that there is."""
        return {**example, "choice_id": self["choice_id"]} if "choice_id" in example else example

    def __missing__(self, key: str) -> str:
        raise AssertionError(f"Say in known_things (tests/test_openapi.py) what a path's {{{key}}} may be.")


PAGE = {"/runs": {"limit": "1"}}
USUAL = {"content-type", "content-length", "date", "connection"}


def undocumented_headers(operation: dict[str, Any], answer: httpx2.Response) -> set[str]:
    """Those that are to be added to HEADERS in app/routers/contract.py."""
    response = operation["responses"].get(str(answer.status_code), {})
    return set(answer.headers) - USUAL - {name.lower() for name in response.get("headers", {})}


def check(value: Any, schema: dict[str, Any], where: str) -> None:
    whole = {**schema, "components": CONTRACT["components"]}
    errors = [error.message for error in jsonschema_rs.Draft202012Validator(whole).iter_errors(value)]
    assert not errors, f"{where}: its example does not fit: {errors}"


def open_fields(schema: dict[str, Any], seen: frozenset[str] = frozenset()) -> list[str]:
    """The fields that may hold any object, at whatever depth."""
    if schema.get("$ref") in seen:
        return []
    seen |= {schema["$ref"]} if "$ref" in schema else set()
    schema = resolved(schema, SCHEMAS)
    found: list[str] = []
    for branches in ("anyOf", "oneOf", "allOf"):
        found += [name for branch in schema.get(branches, []) for name in open_fields(branch, seen)]
    if isinstance(schema.get("items"), dict):
        found += open_fields(schema["items"], seen)
    for name, part in schema.get("properties", {}).items():
        parts = [part, *part.get("anyOf", [])]
        if any(each.get("additionalProperties") is True for each in parts):
            found.append(name)
        found += open_fields(part, seen)
    return found


def contract(**operation: Any) -> dict[str, Any]:
    """A document with one operation."""
    operation = {"operationId": "post", "responses": {}, **operation}
    return {"components": {"schemas": {}}, "paths": {"/things": {"post": operation}}}


def sending(required: list[str], **properties: str) -> dict[str, Any]:
    schema = {"properties": {name: {"type": kind} for name, kind in properties.items()}, "required": required}
    return contract(requestBody={"content": {"application/json": {"schema": schema}}})


def answering(**properties: str) -> dict[str, Any]:
    schema = {"properties": {name: {"type": kind} for name, kind in properties.items()}}
    return contract(responses={"200": {"content": {"application/json": {"schema": schema}}}})


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        (answering(a="string"), answering(a="string", b="string"), []),
        (answering(a="string", b="string"), answering(a="string"), ["POST /things 200 > b: string"]),
        (answering(a="string"), answering(a="integer"), ["POST /things 200 > a: string"]),
        (sending([], a="string"), sending([], a="string", b="string"), []),
        (sending([], a="string"), sending(["b"], a="string", b="string"), ["POST /things < b: string, required"]),
        (sending(["a"], a="string"), sending([], a="string"), []),
        (sending([], a="string"), sending([]), ["POST /things < a: string"]),
        (contract(parameters=[{"in": "query", "name": "q"}]), contract(), ["POST /things ?q"]),
        (contract(), {"components": {"schemas": {}}, "paths": {}}, ["POST /things"]),
    ],
    ids=["more", "less", "another kind", "may send", "must send", "need not send", "cannot send", "parameter", "gone"],
)
def test_what_breaks_a_client_is_found(before: dict[str, Any], after: dict[str, Any], gone: list[str]) -> None:
    found = broken(promises(before), promises(after))
    assert [line for line in found if line in gone] == gone
    assert bool(found) == bool(gone)
