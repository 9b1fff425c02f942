"""What clients may rely on, a line each: what docs/reference/promises.txt lists, and what may only become more."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from app.routers.contract import Json, operations, resolved

_REQUIRED = ", required"


def promises(document: Json) -> set[str]:
    """What clients may rely on, a line each.

    ::

        POST /runs                            there is such an operation
        POST /runs ?tag                       and such a parameter
        POST /runs < action: string, required     such a field in what is sent
        POST /runs 202 > id: string           such a field in what is answered
        POST /runs 404 /problems/unknown-action   and such a problem
    """
    lines: set[str] = set()
    schemas = document["components"]["schemas"]
    for path, method, operation in operations(document):
        name = f"{method.upper()} {path}"
        lines.add(name)
        lines |= {f"{name} {_parameter(each)}" for each in operation.get("parameters", [])}
        for media in operation.get("requestBody", {}).get("content", {}).values():
            lines |= {f"{name} < {field}" for field in _fields(media["schema"], schemas, says_required=True)}
        for status, response in operation["responses"].items():
            lines |= {f"{name} {status} {line}".rstrip() for line in _answers(response, schemas)}
    return lines


def broken(before: set[str], after: set[str]) -> list[str]:
    """What clients of `before` can no longer rely on: promises that are gone, and fields that they must now send."""
    gone = {line for line in before - after if line.removesuffix(_REQUIRED) not in after}
    demanded = {line for line in after - before if line.endswith(_REQUIRED) and _operation(line) in before}
    return sorted(gone | demanded)


def _operation(line: str) -> str:
    return " ".join(line.split(" ")[:2])


def _parameter(parameter: Json) -> str:
    mark = {"query": "?", "path": "/", "header": "#", "cookie": "="}[parameter["in"]]
    return mark + parameter["name"]


def _answers(response: Json, schemas: Json) -> Generator[str]:
    yield ""
    for media_type, media in response.get("content", {}).items():
        schema = media.get("schema")
        if schema is None:
            yield media_type
        elif media_type == "application/problem+json":
            for each in schema.get("oneOf", [schema]):
                yield resolved(each, schemas).get("properties", {}).get("type", {}).get("const", "a problem")
        else:
            yield from (f"> {field}" for field in _fields(schema, schemas))


def _fields(
    schema: Json, schemas: Json, path: str = "", *, says_required: bool = False, above: tuple[str, ...] = ()
) -> Generator[str]:
    if schema.get("$ref") in above:
        return
    above += (schema["$ref"],) if "$ref" in schema else ()
    schema = resolved(schema, schemas)
    for branches in ("anyOf", "oneOf", "allOf"):
        for branch in schema.get(branches, []):
            yield from _fields(branch, schemas, path, says_required=says_required, above=above)
    if isinstance(schema.get("items"), dict):
        yield from _fields(schema["items"], schemas, f"{path}[]", says_required=says_required, above=above)
    for name, part in schema.get("properties", {}).items():
        field = f"{path}.{name}".lstrip(".")
        required = says_required and name in schema.get("required", [])
        yield f"{field}: {_kind(part, schemas)}{_REQUIRED if required else ''}"
        yield from _fields(part, schemas, field, says_required=says_required, above=above)


def _kind(schema: Json, schemas: Json) -> str:
    schema = resolved(schema, schemas)
    branches: list[Any] = schema.get("anyOf") or schema.get("oneOf") or []
    if branches:
        return " or ".join(sorted({_kind(branch, schemas) for branch in branches}))
    return schema.get("type", "anything")
