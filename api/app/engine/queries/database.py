"""What every statement is run by."""

from __future__ import annotations

from typing import Any, Protocol


class Database(Protocol):
    """A connector, or a worker's own link."""

    async def execute_query_all_async(self, query: str, **arguments: Any) -> list[dict[str, Any]]: ...
