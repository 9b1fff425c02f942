"""The OpenAPI document as it is published: what FastAPI writes, with headers, examples and words for each tag."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

Json = dict[str, Any]

REFERENCE = "#/components/schemas/"
"""Where a document's schemas are."""

SERVERS = [{"url": "/", "description": "Where this document was read."}]
TAGS = {
    "runs": "Submit actions, and watch, cancel and retry their runs.",
    "actions": "What can be submitted, and the roadmap document's door: submit, then poll.",
    "events": "What happens to runs, as server-sent events.",
    "doors": "The same runs, in the words of the documents that the project was created from.",
    "adventures": "Stories in a language that one learns: entries, choices, decisions.",
    "audit": "Who asked for what, and what came of it.",
    "queues": "What waits and runs, by queue; pause and resume.",
    "workers": "Who performs runs, and since when it was heard of.",
    "schedules": "Runs at fixed times: from the code, and made through the API.",
    "dead letters": "Runs that failed, by what they failed of; retry or discard a group.",
    "webhooks": "Where it is told that runs have ended: endpoints, deliveries, secrets.",
    "files": "Files to process and to send, and those that actions have made, behind signed URLs.",
    "health": "For probes and people.",
    "metrics": "For Prometheus.",
}
_LOCATION = {"Location": "Where the run is."}
_RETRY_AFTER = {"Retry-After": "Seconds to wait before looking again; not sent once the run has ended."}
_WAITED = {"Preference-Applied": "`wait=N`, where that was preferred and done."}
_KEYED = {"Idempotent-Replayed": "`true`: the request was sent before with this `Idempotency-Key`."}
_ACCEPTED = _LOCATION | _RETRY_AFTER | _KEYED
_ENDED = _LOCATION | _KEYED | _WAITED
_VERSION = {
    "ETag": "The version of the run, for `If-None-Match`.",
    "Cache-Control": "`private, no-cache`: ask with `If-None-Match`.",
    "Vary": "`Prefer`.",
}
_REPLACED = {"Link": 'The run whose place it took (`rel="predecessor-version"`).'}
_CANONICAL = {"Link": 'The run itself, in the canonical words (`rel="canonical"`).'}
# By operation and status; a route may also say it in its own `responses`.
STANDING = {
    "RateLimit": 'How many more requests you may make, and for how many seconds: `"default";r=…;t=…` (RFC 9651).',
    "RateLimit-Policy": 'How many requests are allowed in how many seconds: `"default";q=…;w=…`.',
}
"""Answers to who had to say who he is, unless nothing limits him."""
HEADERS: dict[tuple[str, str], dict[str, str]] = {
    ("submitRun", "202"): _ACCEPTED | _REPLACED,
    ("submitRun", "200"): _ENDED | _RETRY_AFTER | _REPLACED,
    ("runAction", "202"): _ACCEPTED | _CANONICAL,
    ("runAction", "200"): _ENDED | _CANONICAL,
    ("cancelRun", "202"): _RETRY_AFTER,
    ("retryRun", "202"): _RETRY_AFTER,
    ("replayRun", "202"): _ACCEPTED,
    ("replayRun", "200"): _ENDED,
    ("changeRuns", "202"): _ACCEPTED,
    ("changeRuns", "200"): _ENDED,
    ("submitJob", "202"): _ACCEPTED | _CANONICAL,
    ("submitJob", "200"): _ENDED | _CANONICAL,
    ("submitTask", "202"): _ACCEPTED | _CANONICAL,
    ("submitTask", "200"): _ENDED | _CANONICAL,
    ("getJob", "200"): _RETRY_AFTER | _CANONICAL,
    ("getTask", "200"): _RETRY_AFTER | _CANONICAL,
    ("runSchedule", "202"): _LOCATION | _RETRY_AFTER,
    ("createSchedule", "201"): {"Location": "Where the schedule is."},
    ("createAdventure", "201"): {"Location": "Where the adventure is."} | _KEYED,
    ("decide", "201"): {"Location": "Where the adventure is."} | _KEYED,
    ("uploadFile", "201"): {"Location": "Where the file can be read for an hour."},
    ("createWebhook", "201"): {"Location": "Where the webhook is."},
    ("getRun", "200"): _VERSION | _WAITED | _RETRY_AFTER,
    ("getRun", "304"): _VERSION | _WAITED | _RETRY_AFTER,
    ("listRuns", "200"): {"Link": 'The next page (`rel="next"`) and the one before (`rel="prev"`).'},
    ("getActionRun", "200"): _RETRY_AFTER | _CANONICAL,
}
_PLACEHOLDERS = {
    "date-time": "2026-01-05T09:30:00Z",
    "date": "2026-01-05",
    "uri": "https://example.com/",
    "uuid": "7b0c6a3e-9b57-4c1e-8a51-0d5f3b1f6a10",
    "string": "text",
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "object": {},
}


def operation_id(route: APIRoute) -> str:
    """`submit_run` → `submitRun`, where a route does not name its operation."""
    first, *others = route.name.split("_")
    return first + "".join(word.capitalize() for word in others)


def publish(app: FastAPI) -> None:
    """Have the app's document completed once, when it is first asked for."""
    app.openapi_version = "3.2.0"  # where the items of a stream have a schema
    write: Callable[[], Json] = app.openapi

    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = complete(write())
        return app.openapi_schema

    app.openapi = openapi


def complete(document: Json) -> Json:
    """The document, with what FastAPI does not know."""
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        _state_what_is_always_there(schema)
    used = {tag for _, _, operation in operations(document) for tag in operation.get("tags", [])}
    document["servers"] = SERVERS
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items() if name in used]
    for _, _, operation in operations(document):
        operation.setdefault("security", [])
        for media in operation.get("requestBody", {}).get("content", {}).values():
            _show_requests(media, schemas)
        for status, response in operation["responses"].items():
            told = HEADERS.get((operation["operationId"], status), {})
            if operation["security"] and status.startswith("2"):
                told = told | STANDING
            if told:
                response["headers"] = {name: _header(text) for name, text in told.items()} | response.get("headers", {})
            for media_type, media in response.get("content", {}).items():
                if "itemSchema" in media:
                    # Of a stream, not of a text.
                    media.pop("schema", None)
                elif "json" in media_type:
                    _show_answer(media, schemas)
    for methods in document.get("webhooks", {}).values():
        # Who receives one checks its signature; nobody authenticates himself.
        for operation in methods.values():
            operation.setdefault("security", [])
    if f'"{REFERENCE}ProblemDetail"' not in json.dumps(document):
        schemas.pop("ProblemDetail", None)
    return document


def _state_what_is_always_there(schema: Json) -> None:
    properties = schema.get("properties", {})
    if str(properties.get("type", {}).get("const", "")).startswith("/problems/"):
        # What tells one problem from another.
        schema["required"] = sorted({"type", "title", "status", *schema.get("required", [])})
    for shown in schema.get("examples", []):
        if isinstance(shown, dict):
            # FastAPI leaves out what is null.
            shown.update(
                {name: None for name in schema.get("required", []) if name in properties and name not in shown}
            )


def _show_requests(media: Json, schemas: Json) -> None:
    if "example" not in media and "examples" not in media:
        # A body that may be left out is one of two kinds.
        kinds = media["schema"].get("anyOf", [media["schema"]])
        given = [value for kind in kinds for value in resolved(kind, schemas).get("examples", [])]
        media["examples"] = {f"example-{number}": {"value": value} for number, value in enumerate(given, start=1)}


def _show_answer(media: Json, schemas: Json) -> None:
    if "schema" in media and "example" not in media:
        kinds = media["schema"].get("oneOf", [media["schema"]])
        media["examples"] = {
            resolved(kind, schemas).get("title", "typical"): {"value": example(kind, schemas)} for kind in kinds
        }


def operations(document: Json) -> Generator[tuple[str, str, Json]]:
    """Path, method and operation of each."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def resolved(schema: Json, schemas: Json) -> Json:
    """The schema itself, where it is referred to."""
    return schemas[schema["$ref"].removeprefix(REFERENCE)] if "$ref" in schema else schema


def example(schema: Json, schemas: Json) -> Any:
    """A value of the schema: its own example, or one made of the examples of its parts."""
    schema = resolved(schema, schemas)
    for word in ("const", "default"):
        if word in schema and schema[word] is not None:
            return schema[word]
    for word in ("examples", "enum"):
        if schema.get(word):
            return schema[word][0]
    for branches in ("anyOf", "oneOf", "allOf"):
        if branches in schema:
            return example(schema[branches][0], schemas)
    kind = schema.get("type")
    if kind == "array":
        return [example(schema["items"], schemas)] if schema.get("items") else []
    if "properties" in schema:
        # What is not always there is left out, as the server does.
        required = schema.get("required", schema["properties"])
        return {name: example(part, schemas) for name, part in schema["properties"].items() if name in required} | {
            name: part["const"] for name, part in schema["properties"].items() if "const" in part
        }
    return _PLACEHOLDERS.get(schema.get("format", ""), _PLACEHOLDERS.get(kind or "null"))


def _header(text: str) -> Json:
    return {"description": text, "schema": {"type": "string"}}
