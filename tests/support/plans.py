"""What a statement's plan says that it has read."""

from __future__ import annotations

import json
from typing import Any

from app.engine.connector import translate
from app.engine.link import Link


def root_of(explained: Any) -> dict[str, Any]:
    """The plan in the answer to `EXPLAIN (FORMAT JSON)`."""
    return (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]


async def explain(link: Link, query: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The plan of a statement in Procrastinate's notation, which is executed, as the engine's links would plan it."""
    statement, driver = translate(query), link._driver
    assert driver is not None, "the link has not been used"
    values = [arguments[name] for name in statement.parameters]
    [[plan]] = await driver.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}", *values)
    return root_of(plan)


def scanned(node: dict[str, Any], table: str) -> float:
    """The rows that a plan has read of a table, with those it read and did not want."""
    own = 0.0
    if node.get("Relation Name") == table and "Scan" in node["Node Type"]:
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return own + sum(scanned(child, table) for child in node.get("Plans", ()))
