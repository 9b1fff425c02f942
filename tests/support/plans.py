"""What a statement's plan says that it has read."""

from __future__ import annotations

import json
from typing import Any


def root_of(explained: Any) -> dict[str, Any]:
    """The plan in the answer to `EXPLAIN (FORMAT JSON)`."""
    return (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]


def scanned(node: dict[str, Any], table: str) -> float:
    """The rows that a plan has read of a table, with those it read and did not want."""
    own = 0.0
    if node.get("Relation Name") == table and "Scan" in node["Node Type"]:
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return own + sum(scanned(child, table) for child in node.get("Plans", ()))
