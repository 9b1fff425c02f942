"""`runledger actions`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from app.cli.connection import connect
from app.cli.screen import show_json, show_table


def actions(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with the schemas of input and output.")] = False,
) -> None:
    """List what can be run: name, params (optional ones with a ?), description."""
    found = asyncio.run(_list())
    if as_json:
        show_json(found)
    else:
        show_table(["ACTION", "PARAMS", "DESCRIPTION"], [_row(action) for action in found])


async def _list() -> list[dict[str, Any]]:
    async with connect() as client:
        return await client.actions()


def _row(action: dict[str, Any]) -> list[str]:
    return [action["name"], _params(action["input_schema"]), action["description"].partition("\n")[0]]


def _params(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    return " ".join(name if name in required else f"{name}?" for name in schema.get("properties", {}))
