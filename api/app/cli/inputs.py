"""`-i`: how the params of a run are written on a command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer


def read_params(inputs: list[str]) -> dict[str, Any]:
    """The params that the options say; a later one wins.

    `key=value` (JSON if it is JSON, else text), `key=@file` (the file's text), `@file` and `-` (a JSON object from a
    file, from stdin).

    Raises:
        BadParameter: one of them cannot be read.
    """
    params: dict[str, Any] = {}
    for item in inputs:
        params |= _read(item)
    return _sendable(params)


def _read(item: str) -> dict[str, Any]:
    if item == "-":
        return _object(sys.stdin.read(), "stdin")
    if item.startswith("@"):
        return _object(_text(item[1:]), item[1:])
    key, equals, value = item.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"{item!r} is none of key=value, key=@file, @file.json and - (stdin).")
    return {key: _text(value[1:]) if value.startswith("@") else read_value(value)}


def read_value(written: str) -> Any:
    """What is written, as JSON if it is JSON, else as text."""
    try:
        return json.loads(written, parse_constant=_not_json)
    except ValueError:
        return written


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_not_json)
    except ValueError as error:
        raise typer.BadParameter(f"{source} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"{source} is not a JSON object.")
    return value


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is not text in UTF-8.") from None
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}.") from None


def _not_json(constant: str) -> None:
    # Python reads NaN and Infinity, JSON does not have them.
    raise ValueError(f"{constant} is not JSON")


def _sendable(params: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(params, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise typer.BadParameter("a number is too large for JSON, or a text is not Unicode.") from None
    return params
