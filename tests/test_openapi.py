"""The contract is committed, and changes only on purpose."""

from __future__ import annotations

import inspect
import json
from typing import Any

import httpx2
from tests.support.workshop import Workshop

from app import tasks
from app.config import ROOT
from app.openapi import document

COMMITTED = ROOT / "docs/reference/openapi.json"


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    paths = json.loads(document())["paths"]
    return [(path, method, operation) for path, methods in paths.items() for method, operation in methods.items()]


def test_the_committed_document_is_the_code_s() -> None:
    assert COMMITTED.read_text() == document(), "Run `make openapi`, and say in CHANGELOG.md what changed."


def test_every_operation_has_a_name_and_a_description() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    assert [path for path, _, operation in operations() if not operation.get("description")] == []


def test_every_error_is_documented_as_a_problem() -> None:
    for path, method, operation in operations():
        for status, response in operation["responses"].items():
            if status >= "400":
                assert "application/problem+json" in response["content"], (path, method, status)


async def test_every_example_works_as_it_is(workshop: Workshop, api: httpx2.AsyncClient) -> None:
    for name, action in tasks.action.items():
        workshop.action(name)(inspect.unwrap(action.task.func))

    for path, method, operation in operations():
        if "requestBody" in operation and "{" not in path:
            sent = examples(operation)
            assert sent, (method, path)
            for example in sent:
                answer = await api.request(method, path, json=example)
                assert answer.is_success, (method, path, example, answer.text)


def examples(operation: dict[str, Any]) -> list[Any]:
    """The bodies that a person can try: those of the operation, or of its schema."""
    body = operation["requestBody"]["content"]["application/json"]
    if "examples" in body:
        return [example["value"] for example in body["examples"].values()]
    name = body["schema"]["$ref"].rpartition("/")[2]
    return json.loads(document())["components"]["schemas"][name]["examples"]


def test_every_operation_but_health_says_how_to_authenticate_and_what_is_said_otherwise() -> None:
    for path, _, operation in operations():
        if path in ("/livez", "/readyz", "/health"):
            assert "security" not in operation
        else:
            assert operation["security"] == [{"Shared secret": []}, {"Bearer": []}], path
            assert {"400", "401", "403", "429", "503"} <= set(operation["responses"]), path
    assert set(json.loads(document())["components"]["securitySchemes"]) == {"Shared secret", "Bearer"}
